/* Routes the texts on standard input with a bundle: route BUNDLE [POLICY].
 *
 * A text is a line with its length in bytes, then the bytes. Out come two lines a text: the decision's numbers, and its
 * JSON; or "error", the status and the message twice. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "centroute.h"

static int fail(const char *what, const struct CentrouteError *error) {
    fprintf(stderr, "%s: %s (status %d)\n", what, error->message, (int)error->status);
    return 1;
}

int main(int argc, char **argv) {
    struct CentrouteError error;
    struct CentrouteRouter *router;
    struct CentroutePolicy *policy = NULL;
    if (argc < 2) {
        return 2;
    }
    if (centroute_router_load(argv[1], strlen(argv[1]), &router, &error) != CENTROUTE_OK) {
        return fail("load", &error);
    }
    if (argc > 2 && centroute_policy_parse(router, argv[2], strlen(argv[2]), &policy, &error) != CENTROUTE_OK) {
        centroute_router_free(router);
        return fail("policy", &error);
    }
    size_t text_capacity = 1 << 20, json_capacity = 16; /* the JSON's buffer is too small at first, and grows */
    char *text = malloc(text_capacity), *json = malloc(json_capacity);
    size_t length;
    while (scanf("%zu", &length) == 1) {
        getchar();
        if (length > text_capacity || fread(text, 1, length, stdin) != length) {
            fprintf(stderr, "a text of %zu bytes cannot be read\n", length);
            return 1;
        }
        struct CentrouteDecision decision;
        if (centroute_route(router, text, length, policy, &decision, &error) != CENTROUTE_OK) {
            printf("error %d %s\n", (int)error.status, error.message);
        } else {
            size_t name_length;
            const char *name = centroute_model_name(router, decision.model_id, &name_length);
            printf("%.*s\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\t%" PRId32 "\t%" PRId32 "\n", (int)name_length, name,
                   decision.quality, decision.cost_usd, decision.quality_se, decision.margin, decision.similarity,
                   decision.in_distribution, decision.resolved);
        }
        size_t needed;
        enum CentrouteStatus status =
            centroute_route_json(router, text, length, policy, json, json_capacity, &needed, &error);
        if (status == CENTROUTE_SMALL_BUFFER) {
            json_capacity = needed;
            json = realloc(json, json_capacity);
            status = centroute_route_json(router, text, length, policy, json, json_capacity, &needed, &error);
        }
        if (status != CENTROUTE_OK) {
            printf("error %d %s\n", (int)error.status, error.message);
        } else {
            printf("%.*s\n", (int)needed, json);
        }
    }
    free(text);
    free(json);
    centroute_policy_free(policy);
    centroute_router_free(router);
    return 0;
}
