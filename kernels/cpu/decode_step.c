/* One decode step of Mistral on a CPU: a new token of each sequence through all layers, in a call.
 *
 * A step of few rows costs the reading of the weights. Here they are read once, as they lie, and
 * what stands between products is done by the same threads while it is in their caches: five
 * barriers per layer instead of some thirty operations. Sums, norms, rotation and softmax are fp32;
 * weights, keys, values and logits are fp32 or bfloat16. `model.native` builds this file.
 *
 * Dims: N sequences, D model, H query heads, K key heads, G = H / K, E head width, F feed-forward,
 * V ids, S slots.
 */

#include "products.h"

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

typedef struct {
    const void *q, *k, *v, *o, *gate, *up, *down; /* (out, in) each, row by row */
    const float *first_norm, *second_norm;        /* (D) */
    void *keys, *values;                          /* (N, K, S, E), written in place */
} Layer;

typedef struct {
    int64_t layers, width, heads, key_heads, head_width, feed_forward, ids, bf16;
    float eps;
    const void *embedding, *head; /* (V, D) */
    const float *norm;            /* (D) */
    Layer *layer;
} Network;

static void norm(const float *x, const float *weight, float *out, int64_t width, float eps) {
    vec total = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) total += load(x + i) * load(x + i);
    for (; i < width; i++) rest += x[i] * x[i];
    float scale = 1.0f / sqrtf((sum(total) + rest) / width + eps);
    for (i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

/* Rotation of one head; `turn` holds the cosines of half its width, then the sines. */
static void rotate(float *x, const float *turn, int64_t width) {
    int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i], c = turn[i], s = turn[half + i];
        x[i] = a * c - b * s;
        x[half + i] = b * c + a * s;
    }
}

static void put(void *ring, int kind, int64_t at, const float *x, int64_t width) {
    if (kind == FLOATS) {
        memcpy((float *)ring + at, x, width * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < width; i++) ((uint16_t *)ring)[at + i] = to_half(x[i]);
}

/* NAME_scores: q . k[s] of LANES keys; beyond `seen` those of the last one again.
 * NAME_mix: out (G, E) = the scores' (G, pitch) mixture of the values. */
#define ATTENTION(NAME, W, LOAD, ONE)                                                              \
    static vec NAME##_scores(const float *q, const W *keys, int64_t width, int64_t s,              \
                             int64_t seen) {                                                       \
        vec total[LANES];                                                                          \
        float rest[LANES];                                                                         \
        for (int j = 0; j < LANES; j++) {                                                          \
            const W *k = keys + (s + j < seen ? s + j : seen - 1) * width;                         \
            int64_t i = 0;                                                                         \
            vec t = {};                                                                            \
            for (; i + LANES <= width; i += LANES) t += load(q + i) * LOAD(k + i);                 \
            total[j] = t;                                                                          \
            rest[j] = 0;                                                                           \
            for (; i < width; i++) rest[j] += q[i] * ONE(k[i]);                                    \
        }                                                                                          \
        return sums(total, LANES) + load(rest);                                                    \
    }                                                                                              \
    static void NAME##_mix(const float *scores, int64_t pitch, const W *values, int64_t width,     \
                           int64_t seen, int64_t group, float *out) {                              \
        int64_t whole = width / LANES * LANES, four = group / 4 * 4;                               \
        for (int64_t i = 0; i < whole; i += LANES) {                                               \
            for (int64_t g = 0; g < four; g += 4) {                                                \
                vec t[4] = {};                                                                     \
                for (int64_t s = 0; s < seen; s++) {                                               \
                    vec v = LOAD(values + s * width + i);                                          \
                    for (int j = 0; j < 4; j++) t[j] += scores[(g + j) * pitch + s] * v;           \
                }                                                                                  \
                for (int j = 0; j < 4; j++) store(out + (g + j) * width + i, t[j]);                \
            }                                                                                      \
            for (int64_t g = four; g < group; g++) {                                               \
                vec t = {};                                                                        \
                for (int64_t s = 0; s < seen; s++)                                                 \
                    t += scores[g * pitch + s] * LOAD(values + s * width + i);                     \
                store(out + g * width + i, t);                                                     \
            }                                                                                      \
        }                                                                                          \
        for (int64_t g = 0; g < group; g++)                                                        \
            for (int64_t i = whole; i < width; i++) {                                              \
                float t = 0;                                                                       \
                for (int64_t s = 0; s < seen; s++)                                                 \
                    t += scores[g * pitch + s] * ONE(values[s * width + i]);                       \
                out[g * width + i] = t;                                                            \
            }                                                                                      \
    }
ATTENTION(floats, float, load, SAME)
ATTENTION(halves, uint16_t, load_half, from_half)

/* The queries of one key head, (G, E), against its `seen` keys and values, which begin at `ring`;
 * scores has room for G * (seen + LANES). */
static void attend(const Network *net, const Layer *layer, const float *query, int64_t ring,
                   int64_t seen, float *scores, float *out) {
    int64_t width = net->head_width, group = net->heads / net->key_heads;
    int64_t pitch = (seen + LANES - 1) / LANES * LANES;
    const float *keys = (const float *)layer->keys + ring;
    const uint16_t *halved = (const uint16_t *)layer->keys + ring;
    float scale = 1.0f / sqrtf((float)width);
    for (int64_t g = 0; g < group; g++) {
        const float *q = query + g * width;
        float *score = scores + g * pitch;
        vec tops = (vec){} - INFINITY, total = {};
        for (int64_t s = 0; s < pitch; s += LANES) {
            vec x = net->bf16 ? halves_scores(q, halved, width, s, seen)
                              : floats_scores(q, keys, width, s, seen);
            x *= scale;
            store(score + s, x); /* beyond `seen` that of a key once more, which raises no top */
            tops = choose(x > tops, x, tops);
        }
        float top = tops[0];
        for (int i = 1; i < LANES; i++) top = tops[i] > top ? tops[i] : top;
        for (int64_t s = 0; s < pitch; s += LANES) {
            vec x = exponential(load(score + s) - top);
            for (int i = 0; i < LANES; i++)
                if (s + i >= seen) x[i] = 0;
            store(score + s, x);
            total += x;
        }
        float share = 1.0f / sum(total);
        for (int64_t s = 0; s < pitch; s += LANES) store(score + s, load(score + s) * share);
    }
    if (net->bf16)
        halves_mix(scores, pitch, (const uint16_t *)layer->values + ring, width, seen, group, out);
    else
        floats_mix(scores, pitch, (const float *)layer->values + ring, width, seen, group, out);
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Floats of each thread: normed inputs, scores of one key head's queries, inputs in 16 bits. */
static int64_t own_space(const Network *net, int64_t rows, int64_t slots) {
    int64_t longest = most(most(net->width, net->feed_forward), net->heads * net->head_width);
    int64_t scores = net->heads / net->key_heads * (slots + LANES);
    int64_t paired = (rows + LANES - 1) / LANES * LANES * longest / 2;
    return (rows * net->width + scores + paired + 2 * LANES) / LANES * LANES;
}

/* Floats that `decode_step` needs to work with. */
int64_t decode_space(const Network *net, int64_t rows, int64_t slots, int64_t threads) {
    int64_t heads = 2 * (net->heads + net->key_heads) * net->head_width;
    int64_t shared = 2 * net->width + heads + 2 * net->feed_forward + net->ids;
    return rows * shared + threads * own_space(net, rows, slots);
}

/* This thread's part of `count` columns, in groups of two tiles. */
static void share(int64_t count, int64_t *first, int64_t *last) {
    int64_t group = 32, groups = (count + group - 1) / group;
    int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
    *first = group * (groups * me / threads);
    *last = group * (groups * (me + 1) / threads);
    if (*first > count) *first = count;
    if (*last > count) *last = count;
}

static void add(float *x, const float *part, int64_t rows, int64_t width, int64_t first,
                int64_t last) {
    for (int64_t n = 0; n < rows; n++)
        for (int64_t i = first; i < last; i++) x[n * width + i] += part[n * width + i];
}

/* gate = silu(gate) * up, elements [first, last). */
static void swiglu(float *gate, const float *up, int64_t first, int64_t last) {
    int64_t i = first;
    for (; i + LANES <= last; i += LANES) {
        vec g = load(gate + i);
        vec silu = choose(g < -87.0f, (vec){}, g / (1.0f + exponential(-g)));
        store(gate + i, silu * load(up + i));
    }
    for (; i < last; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* Logits (N, V) after one more token of each sequence, in the dtype of the weights.
 *
 * tokens, lengths: (N), lengths without the new token. turns: (N, E), cosines and sines at the new
 * positions. space: `decode_space` floats. */
void decode_step(const Network *net, int64_t rows, const int64_t *tokens, const int64_t *lengths,
                 int64_t slots, const float *turns, float *space, void *logits, int64_t threads) {
    int64_t D = net->width, E = net->head_width, K = net->key_heads, F = net->feed_forward;
    int64_t V = net->ids, group = net->heads / K, queries = net->heads * E, keys = K * E;
    int64_t all = queries + 2 * keys, own = own_space(net, rows, slots);
    float *x = space, *part = x + rows * D, *qkv = part + rows * D, *mixed = qkv + rows * all;
    float *gate = mixed + rows * queries, *up = gate + rows * F, *out = up + rows * F;
    float *owned = out + rows * V;
    int kind = net->bf16 ? HALVES : FLOATS;
    (void)threads;
#ifdef TILES
    if (kind == HALVES && tiles_allowed()) kind = TILED;
#endif
#pragma omp parallel num_threads(threads)
    {
        float *h = owned + omp_get_thread_num() * own, *scores = h + rows * D;
        uint16_t *paired = (uint16_t *)(scores + group * (slots + LANES));
        int64_t first, last;
#ifdef TILES
        if (kind == TILED) _tile_loadconfig(&tiles);
#endif
#pragma omp for
        for (int64_t n = 0; n < rows; n++)
            for (int64_t i = 0, at = tokens[n] * D; i < D; i++)
                x[n * D + i] = net->bf16 ? from_half(((const uint16_t *)net->embedding)[at + i])
                                         : ((const float *)net->embedding)[at + i];
        for (const Layer *layer = net->layer; layer < net->layer + net->layers; layer++) {
            for (int64_t n = 0; n < rows; n++)
                norm(x + n * D, layer->first_norm, h + n * D, D, net->eps);
            share(queries, &first, &last);
            product(kind, layer->q, h, paired, qkv, rows, D, all, first, last);
            share(keys, &first, &last);
            product(kind, layer->k, h, paired, qkv + queries, rows, D, all, first, last);
            product(kind, layer->v, h, paired, qkv + queries + keys, rows, D, all, first, last);
#pragma omp barrier
#pragma omp for
            for (int64_t pair = 0; pair < rows * K; pair++) {
                int64_t n = pair / K, k = pair % K, ring = pair * slots * E;
                int64_t slot = ring + lengths[n] % slots * E;
                int64_t seen = lengths[n] + 1 < slots ? lengths[n] + 1 : slots;
                const float *turn = turns + n * E;
                float *query = qkv + n * all + k * group * E;
                float *key = qkv + n * all + queries + k * E;
                for (int64_t g = 0; g < group; g++) rotate(query + g * E, turn, E);
                rotate(key, turn, E);
                put(layer->keys, kind, slot, key, E);
                put(layer->values, kind, slot, key + keys, E);
                attend(net, layer, query, ring, seen, scores, mixed + (n * K + k) * group * E);
            }
            share(D, &first, &last);
            product(kind, layer->o, mixed, paired, part, rows, queries, D, first, last);
            add(x, part, rows, D, first, last);
#pragma omp barrier
            for (int64_t n = 0; n < rows; n++)
                norm(x + n * D, layer->second_norm, h + n * D, D, net->eps);
            share(F, &first, &last);
            product(kind, layer->gate, h, paired, gate, rows, D, F, first, last);
            product(kind, layer->up, h, paired, up, rows, D, F, first, last);
            for (int64_t n = 0; n < rows; n++) swiglu(gate, up, n * F + first, n * F + last);
#pragma omp barrier
            share(D, &first, &last);
            product(kind, layer->down, gate, paired, part, rows, F, D, first, last);
            add(x, part, rows, D, first, last);
#pragma omp barrier
        }
        for (int64_t n = 0; n < rows; n++) norm(x + n * D, net->norm, h + n * D, D, net->eps);
        share(V, &first, &last);
        product(kind, net->head, h, paired, net->bf16 ? out : logits, rows, D, V, first, last);
        for (int64_t n = 0; net->bf16 && n < rows; n++)
            for (int64_t i = n * V + first; i < n * V + last; i++)
                ((uint16_t *)logits)[i] = to_half(out[i]);
#ifdef TILES
        if (kind == TILED) _tile_release();
#endif
    }
}
