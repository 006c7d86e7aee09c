// Defines absl's `LogMessage << unsigned long` under the name that g++ mangles. TensorFlow 2.18 to 2.20 exports it only
// under Clang's name, because Clang builds TensorFlow. Without this file the XLA library does not link.
#include "absl/log/internal/log_message.h"

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace log_internal {
template LogMessage& LogMessage::operator<<(const unsigned long& v);
}  // namespace log_internal
ABSL_NAMESPACE_END
}  // namespace absl
