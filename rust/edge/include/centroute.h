/* The C library of centroute. Made from rust/edge/src/ffi.rs by cbindgen: change that file, not this one. */

#ifndef CENTROUTE_H
#define CENTROUTE_H

#include <stddef.h>
#include <stdint.h>

// Bytes of an error's message, its zero byte included.
#define CENTROUTE_MESSAGE_BYTES 512

// What a call came to.
typedef enum CentrouteStatus {
  // It was done.
  CENTROUTE_OK = 0,
  // A pointer is NULL, a text is no UTF-8, or a policy belongs to another router.
  CENTROUTE_BAD_ARGUMENT = 1,
  // The bundle is missing, damaged, altered or of another version, or it cannot run here.
  CENTROUTE_BAD_BUNDLE = 2,
  // The text holds nothing to route on.
  CENTROUTE_BAD_TEXT = 3,
  // The policy is contradictory, names unknown models, or leaves no candidate.
  CENTROUTE_BAD_POLICY = 4,
  // The buffer is too small; the length that it needs was written.
  CENTROUTE_SMALL_BUFFER = 5,
  // A fault of the library itself.
  CENTROUTE_INTERNAL = 6,
} CentrouteStatus;

// What requests want, bound to one router.
typedef struct CentroutePolicy CentroutePolicy;

// A loaded bundle.
typedef struct CentrouteRouter CentrouteRouter;

// Why a call failed, in one line of UTF-8 that ends with a zero byte. Untouched when it did not.
typedef struct CentrouteError {
  // The same that the call returned.
  enum CentrouteStatus status;
  // Cut where it is longer.
  char message[CENTROUTE_MESSAGE_BYTES];
} CentrouteError;

// The model chosen for one text. Unknown numbers are NaN.
typedef struct CentrouteDecision {
  // Index of the chosen model in the pool.
  uint32_t model_id;
  // 1 when the text resembles the calibration data, else 0.
  int32_t in_distribution;
  // 1 when the lead over the second is more than chance, 0 when not, -1 when nobody can say.
  int32_t resolved;
  // Predicted quality, 0 to 1.
  float quality;
  // Its standard error.
  float quality_se;
  // Predicted cost in USD.
  float cost_usd;
  // Lead over the second candidate in the policy's own measure.
  float margin;
  // Cosine similarity of the nearest cluster.
  float similarity;
} CentrouteDecision;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Version of the library as a string that ends with a zero byte and is never freed.
const char *centroute_version(void);

// Opens and checks a bundle, a folder or a tar file.
//
// On success `*router` is to be freed with `centroute_router_free`; otherwise it becomes NULL.
//
// # Safety
//
// `path` points to `path_length` bytes, `router` to a place for a pointer, `error` to a place for an error or is NULL.
enum CentrouteStatus centroute_router_load(const char *path,
                                           size_t path_length,
                                           struct CentrouteRouter **router,
                                           struct CentrouteError *error);

// Frees a router; NULL is passed over. Its policies must not be used any more, but may still be freed.
//
// # Safety
//
// `router` is NULL or came from `centroute_router_load`, was not freed, and nobody uses it.
void centroute_router_free(struct CentrouteRouter *router);

// Number of models in the pool; 0 for NULL.
//
// # Safety
//
// `router` is NULL or a live router.
size_t centroute_model_count(const struct CentrouteRouter *router);

// Name of a model, UTF-8 without a zero byte at its end; `*length` becomes its length in bytes.
//
// It lives as long as the router. NULL, and a length of 0, where there is no such model.
//
// # Safety
//
// `router` is NULL or a live router, `length` points to a place for a number or is NULL.
const char *centroute_model_name(const struct CentrouteRouter *router,
                                 uint32_t model_id,
                                 size_t *length);

// Reads a policy, a JSON object with the fields of the Python class `Policy`, and binds it to a router.
//
// On success `*policy` is to be freed with `centroute_policy_free`; otherwise it becomes NULL.
//
// # Safety
//
// `router` is a live router, `json` points to `json_length` bytes, `policy` to a place for a pointer, `error` to a place
// for an error or is NULL.
enum CentrouteStatus centroute_policy_parse(const struct CentrouteRouter *router,
                                            const char *json,
                                            size_t json_length,
                                            struct CentroutePolicy **policy,
                                            struct CentrouteError *error);

// Frees a policy; NULL is passed over.
//
// # Safety
//
// `policy` is NULL or came from `centroute_policy_parse`, was not freed, and nobody uses it.
void centroute_policy_free(struct CentroutePolicy *policy);

// Decides one text of UTF-8. Without a policy (NULL) the default of the router holds.
//
// # Safety
//
// `router` is a live router, `query` points to `query_length` bytes, `policy` is NULL or a live policy, `decision`
// points to a place for a decision, `error` to a place for an error or is NULL.
enum CentrouteStatus centroute_route(const struct CentrouteRouter *router,
                                     const char *query,
                                     size_t query_length,
                                     const struct CentroutePolicy *policy,
                                     struct CentrouteDecision *decision,
                                     struct CentrouteError *error);

// Decides one text, and writes the decision as one JSON object without a zero byte at its end.
//
// `*length` becomes the length of the JSON in bytes, also when the buffer is too small for it.
//
// # Safety
//
// As `centroute_route`; `buffer` points to `capacity` bytes that may be written, none of them of `query`, or `capacity`
// is 0; `length` points to a place for a number.
enum CentrouteStatus centroute_route_json(const struct CentrouteRouter *router,
                                          const char *query,
                                          size_t query_length,
                                          const struct CentroutePolicy *policy,
                                          char *buffer,
                                          size_t capacity,
                                          size_t *length,
                                          struct CentrouteError *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CENTROUTE_H */
