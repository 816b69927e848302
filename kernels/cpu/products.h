/* Vectors, and products of few inputs with many weights, for `decode_step.c`.
 *
 * Vectors are GCC's, 16 floats that the compiler maps to what the processor has.
 * bfloat16 numbers, here "halves", become floats by a shift.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AMX_BF16__) && defined(__linux__)
#define TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES)));

INLINE vec load(const float *p) {
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store(float *p, vec x) { memcpy(p, &x, sizeof x); }

INLINE vec load_half(const uint16_t *p) {
    hvec h;
    memcpy(&h, p, sizeof h);
    return (vec)(__builtin_convertvector(h, ivec) << 16);
}

/* Lane i of the result: the sum of all lanes of t[i], for i < count, a power of two up to LANES.
 * Two vectors become one whose lanes with bit S of their number are the second's, each the sum of
 * what it was and of its neighbour across that bit; of one vector, both are itself. */
#define OWN(i, S) ((i) & (S) ? LANES + (i) : (i))
#define NEIGHBOUR(i, S) ((i) & (S) ? LANES + ((i) ^ (S)) : (i) ^ (S))
#define LANES_OF(F, S)                                                                       \
    ((ivec){F(0, S), F(1, S), F(2, S), F(3, S), F(4, S), F(5, S), F(6, S), F(7, S), F(8, S), \
            F(9, S), F(10, S), F(11, S), F(12, S), F(13, S), F(14, S), F(15, S)})
#define MERGE(S)                                                                            \
    {                                                                                       \
        int half = count > 1 ? count / 2 : 1, other = count > 1;                            \
        _Pragma("GCC unroll 8") for (int j = 0; j < half; j++) {                            \
            vec a = t[j << other], b = t[(j << other) + other];                             \
            t[j] = __builtin_shuffle(a, b, LANES_OF(OWN, S)) +                              \
                   __builtin_shuffle(a, b, LANES_OF(NEIGHBOUR, S));                         \
        }                                                                                   \
        count = half;                                                                       \
    }
INLINE vec sums(vec *t, int count) { /* t is used up */
    MERGE(1) MERGE(2) MERGE(4) MERGE(8)
    return t[0];
}

INLINE float sum(vec x) { return sums(&x, 1)[0]; }

INLINE float from_half(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE uint16_t to_half(float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE vec choose(ivec where, vec a, vec b) {
    return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}

/* exp(x), x cut to [-87, 88], to a few units in the last place: 2^n times a polynomial of the rest
 * (coefficients of Cephes' expf). */
INLINE vec exponential(vec x) {
    vec least = (vec){} - 87.0f, most = (vec){} + 88.0f;
    x = choose(x < least, least, choose(x > most, most, x));
    vec t = x * 1.44269504f;
    ivec half = ((ivec)t & ((ivec){} + INT32_MIN)) | (ivec)((vec){} + 0.5f); /* of the sign of t */
    ivec n = __builtin_convertvector(t + (vec)half, ivec);
    vec f = __builtin_convertvector(n, vec);
    vec r = x - f * 0.693359375f + f * 2.12194440e-4f;
    vec p = (vec){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)((n + 127) << 23);
}

#define SAME(x) (x)
#define AHEAD 2 /* groups of weights that are asked for before they are needed */

/* out[n * stride + r] = w[r] . x[n], for COUNT inputs and WIDE weights. */
#define PRODUCT(NAME, W, LOAD, ONE, COUNT, WIDE)                                                   \
    static void NAME##_##COUNT##_##WIDE(const W *w, const float *x, float *out, int64_t in,        \
                                        int64_t stride) {                                          \
        vec total[WIDE * COUNT];                                                                   \
        memset(total, 0, sizeof total);                                                            \
        int64_t i = 0;                                                                             \
        for (; i + LANES <= in; i += LANES) {                                                      \
            vec a[WIDE];                                                                           \
            for (int r = 0; r < WIDE; r++) {                                                       \
                if (COUNT > 1) __builtin_prefetch(w + (AHEAD * WIDE + r) * in + i);                \
                a[r] = LOAD(w + r * in + i);                                                       \
            }                                                                                      \
            for (int n = 0; n < COUNT; n++) {                                                      \
                vec b = load(x + n * in + i);                                                      \
                for (int r = 0; r < WIDE; r++) total[r * COUNT + n] += a[r] * b;                   \
            }                                                                                      \
        }                                                                                          \
        vec found = sums(total, WIDE * COUNT);                                                     \
        for (int n = 0; n < COUNT; n++)                                                            \
            for (int r = 0; r < WIDE; r++) {                                                       \
                float t = found[r * COUNT + n];                                                    \
                for (int64_t j = i; j < in; j++) t += ONE(w[r * in + j]) * x[n * in + j];          \
                out[n * stride + r] = t;                                                           \
            }                                                                                      \
    }

/* COUNT more inputs against WIDE weights or, of 8, against 2; else weight by weight. */
#define SOME(NAME, COUNT, WIDE)                                                                    \
    if (rows - n >= COUNT) {                                                                       \
        const float *y = x + n * in;                                                               \
        float *to = out + n * stride;                                                              \
        int64_t q = r;                                                                             \
        for (; q + WIDE <= r + wide; q += WIDE)                                                    \
            NAME##_##COUNT##_##WIDE(w + q * in, y, to + q, in, stride);                            \
        for (; q < r + wide; q++) NAME##_##COUNT##_1(w + q * in, y, to + q, in, stride);           \
        n += COUNT;                                                                                \
    }

/* Columns [first, last) of out = x w^T, (N, stride), for w (., in) and x (N, in): four weights at a
 * time, which then are in the first cache for all inputs. */
#define PRODUCTS(NAME, W, LOAD, ONE)                                                               \
    PRODUCT(NAME, W, LOAD, ONE, 1, 4)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 1, 1)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 2, 4)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 2, 1)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 4, 4)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 4, 1)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 8, 2)                                                              \
    PRODUCT(NAME, W, LOAD, ONE, 8, 1)                                                              \
    static void NAME(const W *w, const float *x, float *out, int64_t rows, int64_t in,             \
                     int64_t stride, int64_t first, int64_t last) {                                \
        for (int64_t r = first; r < last; r += 4) {                                                \
            int64_t n = 0, wide = last - r < 4 ? last - r : 4;                                     \
            while (rows - n >= 8) SOME(NAME, 8, 2)                                                 \
            SOME(NAME, 4, 4)                                                                       \
            SOME(NAME, 2, 4)                                                                       \
            SOME(NAME, 1, 4)                                                                       \
        }                                                                                          \
    }
PRODUCTS(floats, float, load, SAME)
PRODUCTS(halves, uint16_t, load_half, from_half)

#ifdef TILES
/* bfloat16 on Intel's matrix unit: tiles of TILE weights by STEP inputs, as they lie, times STEP
 * inputs of up to TILE rows, paired as the unit wants them and rounded to 16 bits as PyTorch's
 * are. */
#define TILE 16
#define STEP 32

static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tiles = {.palette = 1, .bytes = {64, 64, 64, 64, 64}, .rows = {TILE, TILE, TILE, TILE, TILE}};

/* The kernel hands out their state on demand only: ARCH_REQ_XCOMP_PERM of XTILEDATA. */
static int tiles_allowed(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

static void tiled(const uint16_t *w, const float *x, uint16_t *paired, float *out, int64_t rows,
                  int64_t in, int64_t stride, int64_t first, int64_t last) {
    float found[2][TILE][TILE];
    int64_t groups = (rows + TILE - 1) / TILE, size = in * TILE;
    memset(paired, 0, groups * size * sizeof *paired);
    for (int64_t n = 0; n < rows; n++)
        for (int64_t i = 0; i < in; i++)
            paired[n / TILE * size + (i / 2 * TILE + n % TILE) * 2 + i % 2] =
                to_half(x[n * in + i]);
    __asm__ volatile("" ::: "memory"); /* the loads below do not say that they read it */
    for (int64_t r = first; r < last; r += 2 * TILE) {
        int blocks = last - r < 2 * TILE ? 1 : 2;
        const uint16_t *a = w + r * in;
        for (int64_t g = 0; g < groups; g++) {
            int64_t begin = g * TILE, count = rows - begin < TILE ? rows - begin : TILE;
            _tile_zero(0);
            _tile_zero(1);
            for (int64_t i = 0; i < in; i += STEP) {
                for (int j = 0; g == 0 && j < blocks * TILE; j++)
                    __builtin_prefetch(a + (2 * TILE + j) * in + i);
                _tile_loadd(2, paired + g * size + i * TILE, 64);
                _tile_loadd(3, a + i, in * 2);
                _tile_dpbf16ps(0, 3, 2);
                if (blocks == 1) continue;
                _tile_loadd(4, a + TILE * in + i, in * 2);
                _tile_dpbf16ps(1, 4, 2);
            }
            _tile_stored(0, found[0], 64);
            _tile_stored(1, found[1], 64);
            for (int t = 0; t < blocks; t++)
                for (int64_t n = 0; n < count; n++)
                    for (int j = 0; j < TILE; j++)
                        out[(begin + n) * stride + r + t * TILE + j] = found[t][j][n];
        }
    }
}
#endif

enum { FLOATS, HALVES, TILED }; /* how weights are multiplied */

/* Columns [first, last) of x w^T; `paired` has room for the inputs in 16 bits, of rows in TILEs. */
static void product(int kind, const void *w, const float *x, uint16_t *paired, float *out,
                    int64_t rows, int64_t in, int64_t stride, int64_t first, int64_t last) {
    (void)paired;
    if (kind == FLOATS) {
        floats(w, x, out, rows, in, stride, first, last);
        return;
    }
#ifdef TILES
    if (kind == TILED && in % STEP == 0) {
        int64_t whole = first + (last - first) / TILE * TILE;
        tiled(w, x, paired, out, rows, in, stride, first, whole);
        first = whole;
    }
#endif
    halves(w, x, out, rows, in, stride, first, last);
}
