/* Runs a process as if on a CPU with fewer instructions, for libraries that ask CPUID themselves.
 *
 * LD_PRELOAD it, with HIDDEN_CPU_FEATURES=vnni,amx,avx512 or some of them. The kernel makes CPUID
 * fault, and the handler answers without those bits. Needs an Intel CPU with cpuid_fault.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
static int vnni, avx512, amx;

static long allow(long on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, on); }

static void handler(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned char *code = (void *)r[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    uint32_t leaf = r[REG_RAX], sub = r[REG_RCX], a, b, c, d;
    allow(1);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(sub));
    allow(0);
    if (leaf == 7 && sub == 0) {
        if (vnni) c &= ~(1u << 11);
        if (amx) d &= ~(1u << 22 | 1u << 24 | 1u << 25);
        if (avx512) {
            b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31);
            c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
            d &= ~(1u << 23);
        }
    }
    if (leaf == 7 && sub == 1) {
        if (vnni) a &= ~(1u << 4), d &= ~(1u << 4 | 1u << 10);
        if (avx512) a &= ~(1u << 5);
        if (amx) a &= ~(1u << 21);
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d, r[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const char *hidden = getenv("HIDDEN_CPU_FEATURES");
    if (!hidden || !*hidden) return;
    vnni = strstr(hidden, "vnni") != 0;
    avx512 = strstr(hidden, "avx512") != 0;
    amx = strstr(hidden, "amx") != 0;
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    if (allow(0)) _exit(3);
}
