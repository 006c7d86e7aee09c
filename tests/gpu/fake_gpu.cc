// A fake GPU for TensorFlow's CPU build, made with the interface for pluggable devices. The host cannot touch the
// device's memory: it is mapped once without any permission, and a second time for copies and kernels. Nothing is
// asynchronous, so streams and events hold no state.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "ptx_on_host.h"
#include "tensorflow/c/experimental/stream_executor/stream_executor.h"

namespace {

constexpr std::uint64_t kMemory = std::uint64_t{1} << 30, kAlignment = 256;
char* device_memory = nullptr;
std::atomic<std::uint64_t> allocated{0};  // nothing is given back: a test is short
std::atomic<int> copies_to_host{0}, copies_to_device{0};

void* OnHost(const void* device) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uint64_t>(device) + ptx::device_to_host);
}

void Allocate(const SP_Device*, std::uint64_t size, std::int64_t, SP_DeviceMemoryBase* memory) {
  const std::uint64_t at = allocated.fetch_add((size + kAlignment - 1) / kAlignment * kAlignment);
  memory->opaque = at + size <= kMemory ? device_memory + at : nullptr;
  memory->size = size;
}

void CopyToHost(void* to, const void* from, std::uint64_t size) {
  ++copies_to_host;
  std::memcpy(to, OnHost(from), size);
}

void CopyToDevice(void* to, const void* from, std::uint64_t size) {
  ++copies_to_device;
  std::memcpy(OnHost(to), from, size);
}

void CreateExecutor(const SP_Platform*, SE_CreateStreamExecutorParams* params, TF_Status*) {
  SP_StreamExecutor* const executor = params->stream_executor;
  executor->struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  executor->allocate = Allocate;
  executor->deallocate = [](const SP_Device*, SP_DeviceMemoryBase*) {};
  executor->host_memory_allocate = [](const SP_Device*, std::uint64_t size) { return std::malloc(size); };
  executor->host_memory_deallocate = [](const SP_Device*, void* memory) { std::free(memory); };
  executor->get_allocator_stats = [](const SP_Device*, SP_AllocatorStats*) -> TF_Bool { return false; };
  executor->device_memory_usage = [](const SP_Device*, std::int64_t* free, std::int64_t* total) -> TF_Bool {
    *free = *total = kMemory;
    return true;
  };
  executor->create_stream = [](const SP_Device*, SP_Stream* stream, TF_Status*) { *stream = nullptr; };
  executor->destroy_stream = [](const SP_Device*, SP_Stream) {};
  executor->create_stream_dependency = [](const SP_Device*, SP_Stream, SP_Stream, TF_Status*) {};
  executor->get_stream_status = [](const SP_Device*, SP_Stream, TF_Status*) {};
  executor->create_event = [](const SP_Device*, SP_Event* event, TF_Status*) { *event = nullptr; };
  executor->destroy_event = [](const SP_Device*, SP_Event) {};
  executor->get_event_status = [](const SP_Device*, SP_Event) { return SE_EVENT_COMPLETE; };
  executor->record_event = [](const SP_Device*, SP_Stream, SP_Event, TF_Status*) {};
  executor->wait_for_event = [](const SP_Device*, SP_Stream, SP_Event, TF_Status*) {};
  executor->create_timer = [](const SP_Device*, SP_Timer*, TF_Status*) {};
  executor->destroy_timer = [](const SP_Device*, SP_Timer) {};
  executor->start_timer = [](const SP_Device*, SP_Stream, SP_Timer, TF_Status*) {};
  executor->stop_timer = [](const SP_Device*, SP_Stream, SP_Timer, TF_Status*) {};
  executor->memcpy_dtoh = [](const SP_Device*, SP_Stream, void* to, const SP_DeviceMemoryBase* from, std::uint64_t size,
                             TF_Status*) { CopyToHost(to, from->opaque, size); };
  executor->memcpy_htod = [](const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to, const void* from, std::uint64_t size,
                             TF_Status*) { CopyToDevice(to->opaque, from, size); };
  executor->memcpy_dtod = [](const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from,
                             std::uint64_t size,
                             TF_Status*) { std::memmove(OnHost(to->opaque), OnHost(from->opaque), size); };
  executor->sync_memcpy_dtoh = [](const SP_Device*, void* to, const SP_DeviceMemoryBase* from, std::uint64_t size,
                                  TF_Status*) { CopyToHost(to, from->opaque, size); };
  executor->sync_memcpy_htod = [](const SP_Device*, SP_DeviceMemoryBase* to, const void* from, std::uint64_t size,
                                  TF_Status*) { CopyToDevice(to->opaque, from, size); };
  executor->sync_memcpy_dtod = [](const SP_Device*, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from,
                                  std::uint64_t size,
                                  TF_Status*) { std::memmove(OnHost(to->opaque), OnHost(from->opaque), size); };
  executor->block_host_for_event = [](const SP_Device*, SP_Event, TF_Status*) {};
  executor->block_host_until_done = [](const SP_Device*, SP_Stream, TF_Status*) {};
  executor->synchronize_all_activity = [](const SP_Device*, TF_Status*) {};
  executor->mem_zero = [](const SP_Device*, SP_Stream, SP_DeviceMemoryBase* at, std::uint64_t size, TF_Status*) {
    std::memset(OnHost(at->opaque), 0, size);
  };
  executor->memset = [](const SP_Device*, SP_Stream, SP_DeviceMemoryBase* at, std::uint8_t value, std::uint64_t size,
                        TF_Status*) { std::memset(OnHost(at->opaque), value, size); };
  executor->memset32 = [](const SP_Device*, SP_Stream, SP_DeviceMemoryBase* at, std::uint32_t value, std::uint64_t size,
                          TF_Status*) {
    std::fill_n(static_cast<std::uint32_t*>(OnHost(at->opaque)), size / 4, value);
  };
  executor->host_callback = [](const SP_Device*, SP_Stream, SE_StatusCallbackFn function, void* argument) -> TF_Bool {
    function(argument, nullptr);
    return true;
  };
}

unsigned long long context = 1;
void* stream = &context;

}  // namespace

extern "C" {

// TensorFlow hands no kernel the stream of a device that is plugged in. Where this library is preloaded, this function
// takes the place of stream_executor::StreamCommon::platform_specific_handle, and every stream is one of
// fake_libcuda.cc.
void* fake_stream(const void*) __asm__("_ZNK15stream_executor12StreamCommon24platform_specific_handleEv");
void* fake_stream(const void*) { return &stream; }

const void* fake_memory() { return device_memory; }
int fake_copies_to_host() { return copies_to_host; }
int fake_copies_to_device() { return copies_to_device; }

void SE_InitPlugin(SE_PlatformRegistrationParams* params, TF_Status*) {
  const int file = memfd_create("device", 0);
  if (ftruncate(file, kMemory) != 0) std::abort();
  void* const host = mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  void* const device = mmap(nullptr, kMemory, PROT_NONE, MAP_SHARED, file, 0);
  if (host == MAP_FAILED || device == MAP_FAILED) std::abort();
  device_memory = static_cast<char*>(device);
  ptx::device_to_host = reinterpret_cast<std::uint64_t>(host) - reinterpret_cast<std::uint64_t>(device);

  params->platform->struct_size = SP_PLATFORM_STRUCT_SIZE;
  params->platform->name = "FAKE";
  params->platform->type = "GPU";
  params->platform->supports_unified_memory = false;
  params->platform->use_bfc_allocator = false;
  SP_PlatformFns* const functions = params->platform_fns;
  functions->struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  functions->get_device_count = [](const SP_Platform*, int* count, TF_Status*) {
    const char* const devices = std::getenv("LROPS_TEST_GPUS");
    *count = devices ? std::atoi(devices) : 1;
  };
  functions->create_device = [](const SP_Platform*, SE_CreateDeviceParams* device, TF_Status*) {
    device->device->struct_size = SP_DEVICE_STRUCT_SIZE;
    device->device->ordinal = device->ordinal;
    device->device->hardware_name = "none";
  };
  functions->destroy_device = [](const SP_Platform*, SP_Device*) {};
  functions->create_device_fns = [](const SP_Platform*, SE_CreateDeviceFnsParams* device, TF_Status*) {
    device->device_fns->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  };
  functions->destroy_device_fns = [](const SP_Platform*, SP_DeviceFns*) {};
  functions->create_stream_executor = CreateExecutor;
  functions->destroy_stream_executor = [](const SP_Platform*, SP_StreamExecutor*) {};
  functions->create_timer_fns = [](const SP_Platform*, SP_TimerFns* timer, TF_Status*) {
    timer->struct_size = SP_TIMER_FNS_STRUCT_SIZE;
    timer->nanoseconds = [](SP_Timer) -> std::uint64_t { return 0; };
  };
  functions->destroy_timer_fns = [](const SP_Platform*, SP_TimerFns*) {};
  params->destroy_platform = [](SP_Platform*) {};
  params->destroy_platform_fns = [](SP_PlatformFns*) {};
}

}  // extern "C"
