/* A process's clock that a test sets: preloaded, it adds an offset to the time of day.
 *
 * The offset, in microseconds, is the first eight bytes of the file that DTIMER_CLOCK names; it is mapped, so a test
 * changes it by writing. The kernel is asked directly: looking the C library's own functions up would allocate memory,
 * and an allocator that asks for the time would never end. Monotonic clocks are left alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none = 0;
static volatile int64_t *offset_us = &none;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("DTIMER_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset_us = mapped;
    close(file);
}

static void add_offset(struct timespec *time) {
    int64_t ns = time->tv_nsec + *offset_us % 1000000 * 1000;
    time->tv_sec += *offset_us / 1000000 + ns / 1000000000;
    time->tv_nsec = ns % 1000000000;
    if (time->tv_nsec < 0) {
        time->tv_nsec += 1000000000;
        time->tv_sec -= 1;
    }
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add_offset(time);
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    (void)zone;
    struct timespec time;
    int result = clock_gettime(CLOCK_REALTIME, &time);
    if (tv != NULL) {
        tv->tv_sec = time.tv_sec;
        tv->tv_usec = time.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *now) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now != NULL) *now = time.tv_sec;
    return time.tv_sec;
}
