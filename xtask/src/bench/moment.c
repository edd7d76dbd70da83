/* Prints when its own first instruction ran, in nanoseconds of the machine's monotonic clock, and waits for ever.
 * With an argument it does that: `wait` without a word, `status`, which prints what the kernel says of the process, `nap`
 * for two seconds before it ends, `term`, which says that it waits for SIGTERM and ends with it, or `end` at once.
 *
 * In C and without a library: to load a static program of Rust's standard library and get to its main
 * takes three million instructions more. */
#include <sys/syscall.h>
#include <time.h>

static long call4(long number, long first, long second, long third, long fourth) {
    register long r10 __asm__("r10") = fourth;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static long call(long number, long first, long second, long third) {
    return call4(number, first, second, third, 0);
}

static void print(const char *text) {
    long length = 0;
    while (text[length])
        length++;
    call(SYS_write, 1, (long)text, length);
}

/* The stack begins with the count of arguments, and their pointers. */
void first(long *stack) {
    if (*stack > 1) {
        while (*(char *)stack[2] == 'w')
            call(SYS_pause, 0, 0, 0);
        if (*(char *)stack[2] == 's') {
            static char status[4096];
            long file = call(SYS_open, (long)"/proc/self/status", 0, 0);
            call(SYS_write, 1, (long)status, call(SYS_read, file, (long)status, sizeof status));
        }
        if (*(char *)stack[2] == 'n') {
            struct timespec two_seconds = {2, 0};
            call(SYS_nanosleep, (long)&two_seconds, 0, 0);
        }
        if (*(char *)stack[2] == 't') {
            unsigned long term = 1ul << (15 - 1);
            call4(SYS_rt_sigprocmask, 0, (long)&term, 0, sizeof term);
            print("pausing\n");
            call4(SYS_rt_sigtimedwait, (long)&term, 0, 0, sizeof term);
        }
        call(SYS_exit_group, 0, 0, 0);
    }
    struct timespec now;
    call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0);
    unsigned long left = now.tv_sec * 1000000000ul + now.tv_nsec;
    char digits[32];
    char *text = digits + sizeof digits;
    *--text = 0;
    *--text = '\n';
    do
        *--text = '0' + left % 10;
    while (left /= 10);
    print("FIRST_NS=");
    print(text);
    for (;;)
        call(SYS_pause, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call first");
