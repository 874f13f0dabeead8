/* Calls the library as it is not meant to be called, and from many threads: misuse BUNDLE. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "centroute.h"

#define N_THREADS 8
#define N_ROUNDS 200

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
            return 1;                                                      \
        }                                                                  \
    } while (0)

static const char TEXT[] = "Prove that the square root of two is irrational.";
static const size_t LENGTH = sizeof TEXT - 1;

struct Work {
    const struct CentrouteRouter *router;
    const struct CentroutePolicy *policy;
    struct CentrouteDecision wanted;
    int is_same;
};

static void *work(void *argument) {
    struct Work *own = argument;
    own->is_same = 1;
    for (int round = 0; round < N_ROUNDS; round++) {
        struct CentrouteDecision decision;
        struct CentrouteError error;
        memset(&error, 0, sizeof error);
        int is_routed = centroute_route(own->router, TEXT, LENGTH, own->policy, &decision, &error) == CENTROUTE_OK;
        own->is_same &= is_routed && decision.model_id == own->wanted.model_id &&
                        decision.quality == own->wanted.quality && decision.similarity == own->wanted.similarity;
        /* Errors of one thread do not show in another. */
        own->is_same &= centroute_route(own->router, "", 0, own->policy, &decision, &error) == CENTROUTE_BAD_TEXT;
        own->is_same &= error.status == CENTROUTE_BAD_TEXT && strstr(error.message, "only spaces") != NULL;
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct CentrouteError error;
    struct CentrouteRouter *router = (struct CentrouteRouter *)argv, *other;
    struct CentroutePolicy *policy = (struct CentroutePolicy *)argv;
    struct CentrouteDecision decision;
    char json[8];
    size_t length = 7;
    if (argc < 2) {
        return 2;
    }

    /* Bundles that are none: the pointer becomes NULL, and the message is a string whatever the path holds. */
    CHECK(centroute_router_load("/nowhere", 8, &router, &error) == CENTROUTE_BAD_BUNDLE);
    CHECK(router == NULL && error.status == CENTROUTE_BAD_BUNDLE && strstr(error.message, "/nowhere") != NULL);
    CHECK(centroute_router_load("/nowhere", 8, &router, NULL) == CENTROUTE_BAD_BUNDLE);
    CHECK(centroute_router_load("a\0b", 3, &router, &error) == CENTROUTE_BAD_BUNDLE);
    CHECK(centroute_router_load("\xff", 1, &router, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_router_load(NULL, 3, &router, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(strcmp(error.message, "path: is NULL") == 0);
    CHECK(centroute_router_load("/nowhere", 8, NULL, &error) == CENTROUTE_BAD_ARGUMENT);
    char path[2000];
    for (size_t place = 0; place < sizeof path; place += 2) {
        memcpy(path + place, "\xc3\xa9", 2); /* cut within a character, it would be no UTF-8 any more */
    }
    CHECK(centroute_router_load(path, sizeof path, &router, &error) == CENTROUTE_BAD_BUNDLE);
    CHECK(strlen(error.message) < CENTROUTE_MESSAGE_BYTES && strlen(error.message) > CENTROUTE_MESSAGE_BYTES - 4);
    CHECK((error.message[strlen(error.message) - 1] & 0xff) == 0xa9);

    CHECK(centroute_router_load(argv[1], strlen(argv[1]), &router, &error) == CENTROUTE_OK);
    CHECK(centroute_router_load(argv[1], strlen(argv[1]), &other, &error) == CENTROUTE_OK);

    /* Nothing where something is wanted. */
    CHECK(centroute_model_count(NULL) == 0 && centroute_model_count(router) > 1);
    CHECK(centroute_model_name(NULL, 0, &length) == NULL && length == 0);
    CHECK(centroute_model_name(router, 1000000, NULL) == NULL);
    CHECK(centroute_model_name(router, 0, &length) != NULL && length > 0);
    CHECK(centroute_route(NULL, TEXT, LENGTH, NULL, &decision, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_route(router, NULL, LENGTH, NULL, &decision, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_route(router, TEXT, (size_t)-1, NULL, &decision, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_route(router, TEXT, LENGTH, NULL, NULL, NULL) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_route(router, "\xed\xa0\x80", 3, NULL, &decision, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_route(router, NULL, 0, NULL, &decision, &error) == CENTROUTE_BAD_TEXT);

    /* Policies: of another form, unknown names, of another router. */
    CHECK(centroute_policy_parse(router, "{", 1, &policy, &error) == CENTROUTE_BAD_POLICY && policy == NULL);
    CHECK(centroute_policy_parse(router, "[1]", 3, &policy, &error) == CENTROUTE_BAD_POLICY);
    CHECK(centroute_policy_parse(router, "{} {}", 5, &policy, &error) == CENTROUTE_BAD_POLICY);
    CHECK(centroute_policy_parse(router, "{\"alhpa\": 1}", 12, &policy, &error) == CENTROUTE_BAD_POLICY);
    CHECK(centroute_policy_parse(router, "{\"alpha\": 2}", 12, &policy, &error) == CENTROUTE_BAD_POLICY);
    CHECK(centroute_policy_parse(router, "{\"deny\": [\"x\"]}", 15, &policy, &error) == CENTROUTE_BAD_POLICY);
    CHECK(strstr(error.message, "unknown model") != NULL);
    CHECK(centroute_policy_parse(NULL, "{}", 2, &policy, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(centroute_policy_parse(router, "{\"alpha\": 1}", 12, &policy, &error) == CENTROUTE_OK);
    CHECK(centroute_route(other, TEXT, LENGTH, policy, &decision, &error) == CENTROUTE_BAD_ARGUMENT);
    CHECK(strstr(error.message, "another router") != NULL);

    /* A small buffer stays as it is and the length is told. */
    memset(json, '#', sizeof json);
    CHECK(centroute_route_json(router, TEXT, LENGTH, policy, json, 4, &length, &error) == CENTROUTE_SMALL_BUFFER);
    CHECK(length > 100 && json[0] == '#');
    CHECK(centroute_route_json(router, TEXT, LENGTH, policy, NULL, 0, &length, &error) == CENTROUTE_SMALL_BUFFER);
    CHECK(centroute_route_json(router, TEXT, LENGTH, policy, json, 4, NULL, &error) == CENTROUTE_BAD_ARGUMENT);

    /* Many threads with one router and one policy. */
    CHECK(centroute_route(router, TEXT, LENGTH, policy, &decision, &error) == CENTROUTE_OK);
    pthread_t threads[N_THREADS];
    struct Work works[N_THREADS];
    for (int thread = 0; thread < N_THREADS; thread++) {
        works[thread] = (struct Work){router, policy, decision, 0};
        CHECK(pthread_create(&threads[thread], NULL, work, &works[thread]) == 0);
    }
    for (int thread = 0; thread < N_THREADS; thread++) {
        CHECK(pthread_join(threads[thread], NULL) == 0);
        CHECK(works[thread].is_same);
    }

    /* A policy may outlive its router until it is freed; NULL may be freed. */
    centroute_router_free(router);
    centroute_router_free(other);
    centroute_policy_free(policy);
    centroute_router_free(NULL);
    centroute_policy_free(NULL);
    printf("%s\n", centroute_version());
    return 0;
}
