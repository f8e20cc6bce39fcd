/* SPDX-License-Identifier: MIT */
#include "src/base/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t requested, save;

static void on_signal(int sig)
{
    (void)sig;
    requested = 1;
}

static void on_save(int sig)
{
    (void)sig;
    save = 1;
}

void dm_stop_install(void)
{
    // SA_RESETHAND: the second signal has its default effect.
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

bool dm_stop_requested(void)
{
    return requested;
}

void dm_stop_install_save(void)
{
    struct sigaction sa = {.sa_handler = on_save, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGUSR1, &sa, NULL);
}

bool dm_stop_take_save(void)
{
    const bool asked = save;
    if (asked)
        save = 0;
    return asked;
}
