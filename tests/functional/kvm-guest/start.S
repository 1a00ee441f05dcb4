/*
 * KVM test guest: entry, interrupt entries, start of further CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * PVH boot enters in 32-bit protected mode with flat segments and paging off,
 * and that is how the guest stays: some hosts have a KVM that cannot do more.
 */

#define PVH_ENTRY           18      /* type of the note that says where */
#define STACK_SIZE          0x4000
#define MAX_CPUS            8
#define TRAMPOLINE          0x8000
#define LAPIC_ID            0xfee00020
#define NR_VECTORS          0x50

    .section .note.pvh, "a", @note
    .long 4, 4, PVH_ENTRY
    .asciz "Xen"
    .long start

    .text
    .globl start
start:
    cli
    mov $stacks + STACK_SIZE, %esp
    lgdt gdt_pointer
    ljmp $8, $1f
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lidt idt_pointer
    push %ebx
    call guest_main
2:  hlt
    jmp 2b

/* Each pushes an error code where the CPU does not, and its number. */
    .macro interrupt_entry vector
    .if !(\vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17)
    push $0
    .endif
    push $\vector
    jmp interrupt_common
    .align 16
    .endm

    .align 16
    .globl interrupt_entries
interrupt_entries:
    .set vector, 0
    .rept NR_VECTORS
    interrupt_entry vector
    .set vector, vector + 1
    .endr

/*
 * Vector and place go to guest_interrupt(). The way back is no iret: where KVM
 * emulates whole guests it knows none for protected mode. The frame is turned
 * from (eip, cs, eflags) into (-, eflags, eip), for popf and ret. Interrupts
 * were on, or there would have been none; sti keeps them off up to the ret.
 */
interrupt_common:
    pusha
    cld
    mov 32(%esp), %eax      /* the vector */
    mov 40(%esp), %edx      /* where it was taken */
    push %edx
    push %eax
    call guest_interrupt
    add $8, %esp
    mov 48(%esp), %eax      /* eflags, as they were but for interrupts */
    and $~0x200, %eax
    mov %eax, 44(%esp)
    mov 40(%esp), %eax
    mov %eax, 48(%esp)
    popa
    add $12, %esp
    popf
    sti
    ret

/*
 * Copied to TRAMPOLINE, where a CPU begins in real mode. It takes the stack of
 * its number and joins the program.
 */
    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + (gdt_copy - trampoline)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $cpu_start
    .align 4
gdt_copy:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
cpu_start:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov LAPIC_ID, %eax
    shr $24, %eax
    mov %eax, %ecx
    inc %ecx
    imul $STACK_SIZE, %ecx
    lea stacks(%ecx), %esp
    lidt idt_pointer
    push %eax
    call guest_cpu_main
3:  hlt
    jmp 3b

    .data
    .align 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    /* 8: code, 0 to 4 GiB */
    .quad 0x00cf92000000ffff    /* 16: data, likewise */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .align 4
    .word 0
idt_pointer:
    .word NR_VECTORS * 8 - 1
    .long idt

    .bss
    .align 16
    .globl idt
idt:
    .skip NR_VECTORS * 8
    .align 16
stacks:
    .skip STACK_SIZE * MAX_CPUS

    .section .note.GNU-stack, "", @progbits
