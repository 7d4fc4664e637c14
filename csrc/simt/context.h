// The registers of a fiber that does not run. swapcontext asks the operating system twice each time, which is 50 times
// the work of a switch: where the processor is known, this is done by hand.

#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(MMCUDA_SIMT_UCONTEXT)
extern "C" void mmcuda_simt_switch(void** from, void* to);
// Pushes what a function keeps for its caller, leaves the stack pointer in *from, and returns on the other stack.
asm(R"(
.text
.hidden mmcuda_simt_switch
.globl mmcuda_simt_switch
.type mmcuda_simt_switch, @function
mmcuda_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size mmcuda_simt_switch, .-mmcuda_simt_switch
)");

namespace mmcuda::simt {

struct Registers {
  void* stack_pointer = nullptr;
  void start(unsigned char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes) - 2;  // the entry, and in place of its return address zero
    top[0] = reinterpret_cast<void*>(entry);
    top[1] = nullptr;
    stack_pointer = top - 6;
  }
  void switch_to(const Registers& next) { mmcuda_simt_switch(&stack_pointer, next.stack_pointer); }
};

}  // namespace mmcuda::simt
#else
#include <ucontext.h>

namespace mmcuda::simt {

struct Registers {
  ucontext_t context;
  void start(unsigned char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    makecontext(&context, entry, 0);
  }
  void switch_to(const Registers& next) { swapcontext(&context, &next.context); }
};

}  // namespace mmcuda::simt
#endif
