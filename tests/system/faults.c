/* SPDX-License-Identifier: MIT
 *
 * A disk that fails: loaded before the C library (LD_PRELOAD), it counts the calls of four
 * kinds that touch files under FAULTS_ROOT, and fails those that FAULTS_FILE names, in all
 * threads and processes that have it.  FAULTS_FILE is int64 numbers, mapped and shared:
 *
 *     0  kinds that fail: 1 sync, 2 write, 4 open, 8 rename
 *     1  the first call of these to fail, counted from 1 over the kinds together
 *     2  0: that call alone; else each so many calls after it another one
 *     3  errno
 *     4  microseconds that a sync takes before it begins
 *     5  calls of these kinds so far
 *     6  calls that were failed
 *     7  syncs that were delayed
 *
 * The node's standard error, which the tests keep under FAULTS_ROOT too, is left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SYNC = 1, WRITE = 2, OPEN = 4, RENAME = 8 };

static volatile int64_t *told;
static const char *root;
static size_t root_len;

/* Also called by a process that is another command from now on. */
__attribute__((constructor)) void faults_begin(void)
{
    const char *path = getenv("FAULTS_FILE");
    root = getenv("FAULTS_ROOT");
    if (!path || !root)
        return;
    root = strdup(root);
    root_len = strlen(root);
    int (*open_)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = open_(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        told = at;
}

static int is_ours(const char *path)
{
    const char *last = strrchr(path, '/');
    return told && !strncmp(path, root, root_len) && last && strcmp(last, "/stderr");
}

static int fails(int kind, const char *path)
{
    int saved = errno;
    if (!is_ours(path))
        return 0;
    if (kind == SYNC && told[4]) {
        struct timespec pause = {told[4] / 1000000, told[4] % 1000000 * 1000};
        __sync_add_and_fetch(&told[7], 1);
        nanosleep(&pause, NULL);
    }
    errno = saved;
    if (!(told[0] & kind))
        return 0;
    int64_t after = __sync_add_and_fetch(&told[5], 1) - told[1];
    if (after < 0 || (told[2] ? after % told[2] : after))
        return 0;
    __sync_add_and_fetch(&told[6], 1);
    errno = (int)told[3];
    return 1;
}

static int fails_fd(int kind, int fd)
{
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(kind, path);
}

static int fails_at(int kind, int folder, const char *path)
{
    char name[64], whole[PATH_MAX + NAME_MAX + 2];
    if (*path == '/' || folder == AT_FDCWD)
        return fails(kind, path);
    snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(name, whole, PATH_MAX);
    if (length < 0)
        return 0;
    snprintf(whole + length, NAME_MAX + 2, "/%s", path);
    return fails(kind, whole);
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd) { NEXT(fsync); return fails_fd(SYNC, fd) ? -1 : next(fd); }
int fdatasync(int fd) { NEXT(fdatasync); return fails_fd(SYNC, fd) ? -1 : next(fd); }

ssize_t write(int fd, const void *from, size_t count)
{ NEXT(write); return fails_fd(WRITE, fd) ? -1 : next(fd, from, count); }
ssize_t pwrite(int fd, const void *from, size_t count, off_t at)
{ NEXT(pwrite); return fails_fd(WRITE, fd) ? -1 : next(fd, from, count, at); }
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at)
{ NEXT(pwrite64); return fails_fd(WRITE, fd) ? -1 : next(fd, from, count, at); }
int posix_fallocate(int fd, off_t at, off_t count)
{ NEXT(posix_fallocate); return fails_fd(WRITE, fd) ? errno : next(fd, at, count); }
int posix_fallocate64(int fd, off64_t at, off64_t count)
{ NEXT(posix_fallocate64); return fails_fd(WRITE, fd) ? errno : next(fd, at, count); }

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...)
{ MODE(flags) NEXT(open); return fails(OPEN, path) ? -1 : next(path, flags, mode); }
int open64(const char *path, int flags, ...)
{ MODE(flags) NEXT(open64); return fails(OPEN, path) ? -1 : next(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...)
{ MODE(flags) NEXT(openat);
  return fails_at(OPEN, folder, path) ? -1 : next(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...)
{ MODE(flags) NEXT(openat64);
  return fails_at(OPEN, folder, path) ? -1 : next(folder, path, flags, mode); }

int rename(const char *from, const char *to)
{ NEXT(rename); return fails(RENAME, to) ? -1 : next(from, to); }
int renameat(int folder, const char *from, int other, const char *to)
{ NEXT(renameat);
  return fails_at(RENAME, other, to) ? -1 : next(folder, from, other, to); }
int link(const char *from, const char *to)
{ NEXT(link); return fails(RENAME, to) ? -1 : next(from, to); }
int linkat(int folder, const char *from, int other, const char *to, int flags)
{ NEXT(linkat);
  return fails_at(RENAME, other, to) ? -1 : next(folder, from, other, to, flags); }
