/*
 * vfio-user benchmark: the guest program's first instructions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A multiboot kernel: QEMU's -kernel loads it at 1 MiB and enters it in 32-bit
 * protected mode without paging. Other processors start in real mode at
 * TRAMPOLINE, to which the code between trampoline and trampoline_end is
 * copied.
 */

#define MAGIC       0x1badb002
#define CODE        0x08
#define DATA        0x10
#define TRAMPOLINE  0x8000
#define STACK_SIZE  0x4000

    .section .multiboot, "a"
    .align 4
    .long MAGIC, 0, -MAGIC

    .text
    .globl _start
_start:
    cli
    lgdt gdt_pointer
    ljmp $CODE, $1f
1:  movl $stacks + STACK_SIZE, %esp
    call load_segments
    pushl %ebx
    call main
2:  cli
    hlt
    jmp 2b

/* MMX is used for 8-byte accesses: no emulation, no traps. */
load_segments:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movl %cr0, %eax
    andl $~0xc, %eax
    orl $2, %eax
    movl %eax, %cr0
    fninit
    lidt idt_pointer
    ret

    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + (trampoline_gdt - trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $CODE, $ap_start
    .align 4
trampoline_gdt:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
ap_start:
    movw $DATA, %ax
    movw %ax, %ds
    movl $1, %edi
    lock xaddl %edi, ap_count
    leal 2(%edi), %eax
    imull $STACK_SIZE, %eax
    leal stacks(%eax), %eax
    movw $DATA, %cx
    movw %cx, %ss
    movl %eax, %esp
    call load_segments
    incl %edi
    pushl %edi
    call ap_main
3:  cli
    hlt
    jmp 3b

/*
 * Keeps the time, acknowledges at the local APIC. Interrupts are taken in hlt
 * alone, so no flags need to be restored; without iret it also works where
 * nested KVM emulates the instruction after a register access.
 */
    .globl irq_entry
irq_entry:
    pushl %eax
    pushl %edx
    rdtsc
    movl %eax, irq_time
    incl irq_count
    movl $0, 0xfee000b0
    popl %edx
    popl %eax
    ret $8

    .data
    .align 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
gdt_end:
    .align 4
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .globl idt_pointer
    .align 4
idt_pointer:
    .word 256 * 8 - 1
    .long idt
    .globl ap_count
    .align 4
ap_count:
    .long 0

    .bss
    .align 16
stacks:
    .skip 8 * STACK_SIZE
    .section .note.GNU-stack, "", @progbits
