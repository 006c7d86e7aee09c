"""Turns PTX into C++, so that a machine without a GPU can run the same kernels.

Each instruction becomes a call of the function of its name in ptx_on_host.h.
"""

import re

_REGISTERS = {".pred": "pred", ".b16": "b16", ".b32": "b32", ".b64": "b64"}
_TYPE = re.compile(r"pred|[busf]\d+")


def _operand(text):
    text = text.strip().strip("[]")
    if re.fullmatch(r"-?\d+", text):
        return f"{int(text) % 2**64}ull"
    if re.fullmatch(r"%(n?tid|n?ctaid)\.x", text):
        return "at." + text[1:].replace(".", "_")
    base, plus, offset = text.partition("+")  # of an address
    return base.lstrip("%$") + plus + offset


def _statement(line):
    guard, instruction, operands = re.fullmatch(r"(?:@(!?%\w+)\s+)?([\w.]+)\s*(.*?);", line).groups()
    condition = f"if ({guard.replace('%', '')}) " if guard else ""
    name, *suffixes = instruction.split(".")
    arguments = [_operand(operand) for operand in operands.split(",")]
    if name == "bra":
        return f"{condition}goto {arguments[0]};"
    if name == "ret":
        return f"{condition}return;"
    types = [suffix for suffix in suffixes if _TYPE.fullmatch(suffix)]
    words = [name, *(suffix for suffix in suffixes if suffix not in types)]
    function = "_".join(words) + ("_" if name in ("and", "or", "xor", "not") else "") + f"<{', '.join(types)}>"
    if name == "st":
        return f"{condition}{function}({', '.join(arguments)});"
    return f"{condition}{arguments[0]} = {function}({', '.join(arguments[1:])});"


def _kernel(name, parameters, body):
    lines = [f"static void {name}(void* const* parameters, const Place& at) {{"]
    for number, parameter in enumerate(re.findall(r"(\w+)(?:\[\d+\])?(?:,|$)", parameters)):
        lines.append(f"[[maybe_unused]] const u64 {parameter} = reinterpret_cast<u64>(parameters[{number}]);")
    for line in filter(None, map(str.strip, re.sub(r"//.*", "", body).splitlines())):
        if register := re.fullmatch(r"\.reg (\.\w+)\s+%(\w+)<(\d+)>;", line):
            kind, prefix, count = register.groups()
            lines.append(f"[[maybe_unused]] {_REGISTERS[kind]} {', '.join(f'{prefix}{i}' for i in range(int(count)))};")
        elif label := re.fullmatch(r"\$(\w+):", line):
            lines.append(f"{label[1]}:")
        elif not line.startswith(".pragma"):
            lines.append(_statement(line))
    return "\n".join([*lines, "}"])


def entries(ptx):
    """The kernels of a text: name -> its parameters and its body, unchanged."""
    found = re.findall(r"\.entry (\w+)\((.*?)\)[^{]*\{\n(.*?)\n\}", ptx, re.DOTALL)
    return {name: (" ".join(parameters.split()), body) for name, parameters, body in found}


def write_header(ptx, folder):
    """Writes ptx_of_the_test.h: each `.entry` of the text as a `ptx::Kernel`, and `ptx::kernels`: name -> kernel."""
    kernels = entries(ptx)
    functions = "\n\n".join(_kernel(name, *kernel) for name, kernel in kernels.items())
    table = ", ".join(f'{{"{name}", {name}}}' for name in kernels)
    (folder / "ptx_of_the_test.h").write_text(
        '#include <map>\n#include <string>\n\n#include "ptx_on_host.h"\n\nnamespace ptx {\n\n'
        f"{functions}\n\nstatic const std::map<std::string, Kernel> kernels = {{{table}}};\n\n}}  // namespace ptx\n"
    )
