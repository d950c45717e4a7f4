/*
 * The least that sampling libvirt can cost: the collector's bulk call at a steady rhythm, and nothing else.
 *
 *     bulk_loop URI INTERVAL_MS
 *
 * Prints how many domains there are, once, and then calls until it is killed or the call fails.
 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bulk_loop URI INTERVAL_MS\n");
        return 2;
    }
    /* Whoever measures may be killed: then nobody else ends this loop. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long interval = atol(argv[2]);
    virConnectPtr connection = virConnectOpenReadOnly(argv[1]);
    if (!connection) {
        return 1;
    }
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int first = 1;; first = 0) {
        virDomainStatsRecordPtr *records = NULL;
        int count = virConnectGetAllDomainStats(
            connection, VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_BALLOON, &records,
            VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
        if (count < 0) {
            return 1;
        }
        virDomainStatsRecordListFree(records);
        if (first) {
            printf("%d\n", count);
            fflush(stdout);
        }
        next.tv_nsec += interval % 1000 * 1000000;
        next.tv_sec += interval / 1000 + next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR) {
        }
    }
}
