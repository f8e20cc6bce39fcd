/* SPDX-License-Identifier: MIT */
/* dynamo.c - main is the subcommand table. */
#include <argp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/cmd.h"

static const struct dm_cmd {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
} cmds[] = {
#define X(name, fn, text) {name, fn, text},
    DM_CMD_LIST(X)
#undef X
};
enum { N_CMDS = sizeof(cmds) / sizeof(cmds[0]) };

static void usage(FILE *out)
{
    fprintf(out, "usage: dynamo COMMAND [OPTION...]\n\n"
                 "Several tokens per forward pass for Pythia models.\n\n");
    for (int i = 0; i < N_CMDS; i++)
        fprintf(out, "  %-16s %s\n", cmds[i].name, cmds[i].text);
    fprintf(out, "\ndynamo COMMAND --help tells the options of a command, with an example.\n");
}

/* Where a standard stream is closed, the first file opened would take its number, and what is meant
 * for the stream would go into the file. What they are opened for is the contrary, so that using
 * them still fails. */
static void keep_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            _exit(1); // nobody would hear why
}

/* A result that could not be written is a failure even if everything before went well. */
static int checked(int code)
{
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "dynamo: cannot write to standard output\n");
        return code ? code : 1;
    }
    return code;
}

int main(int argc, char **argv)
{
    keep_standard_streams();
    argp_err_exit_status = 2;
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes is an error like a full disk
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return checked(0);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("dynamo %s\n", DM_VERSION);
        return checked(0);
    }
    for (int i = 0; i < N_CMDS; i++) {
        if (strcmp(argv[1], cmds[i].name))
            continue;
        char name[64];
        snprintf(name, sizeof(name), "dynamo %s", cmds[i].name);
        argv[1] = name;
        return checked(cmds[i].run(argc - 1, argv + 1));
    }
    fprintf(stderr, "dynamo: \"%s\" is not a command; dynamo --help lists them\n", argv[1]);
    return 2;
}
