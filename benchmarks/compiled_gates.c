/* The gates of one GRU cell and step, and their gradients, in one pass; see seqvae/nn/gru_path.py. */
#include <math.h>

/* n, r, z hold sums and then gates, h the hidden part; before and after are states. */
void forward(float *n, float *r, float *z, const float *h, const float *before, float *after, int size) {
#pragma omp simd
  for (int i = 0; i < size; i++) {
    r[i] = 1.f / (1.f + expf(-r[i]));
    z[i] = 1.f / (1.f + expf(-z[i]));
    n[i] = 2.f / (1.f + expf(-(n[i] + 2.f * r[i] * h[i]))) - 1.f;
    after[i] = n[i] + z[i] * (before[i] - n[i]);
  }
}

/* gradient: to the state after, then the direct part of that to the state before. */
void backward(const float *n, const float *r, const float *z, const float *h, const float *after,
              float *gradient, float *to_n, float *to_r, float *to_z, float *to_h, int size) {
#pragma omp simd
  for (int i = 0; i < size; i++) {
    float rest = 1.f - z[i];
    to_n[i] = gradient[i] * rest * (1.f - n[i] * n[i]);
    to_h[i] = to_n[i] * r[i];
    to_r[i] = to_h[i] * h[i] * (1.f - r[i]);
    to_z[i] = gradient[i] * (after[i] - n[i]) * rest;
    gradient[i] *= z[i];
  }
}
