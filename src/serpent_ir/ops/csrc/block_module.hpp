// What module.cpp calls to add the kernels of a block to the module.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

namespace serpent {

// checked: the name of the instruction set asked for; throws when this processor does not have it.
void bind_block(nanobind::module_& m, const char* (*checked)(const std::string&));

}  // namespace serpent
