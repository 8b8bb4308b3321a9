// Sums and maxima: shuffles, shared memory, atomics, votes.
extern "C" __global__ void sum(const float *x, float *out, int n) {
  __shared__ float part[32];
  float v = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  for (int k = 16; k > 0; k >>= 1) v += __shfl_down_sync(0xffffffffu, v, k);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
    for (int k = 16; k > 0; k >>= 1) v += __shfl_xor_sync(0xffffffffu, v, k);
    if (threadIdx.x == 0) atomicAdd(out, v);
  }
}

extern "C" __global__ void votes(const int *x, unsigned *out) {
  int v = x[threadIdx.x];
  unsigned *y = out + 8 * threadIdx.x;
  y[0] = __ballot_sync(0xffffffffu, v & 1);
  y[1] = __any_sync(0xffffffffu, v > 90);
  y[2] = __all_sync(0xffffffffu, v >= 0);
  y[3] = __match_any_sync(0xffffffffu, v % 4);
  y[4] = __reduce_add_sync(0xffffffffu, (unsigned)v);
  y[5] = __reduce_max_sync(0xffffffffu, v - 50);
  y[6] = __shfl_up_sync(0xffffffffu, v, 3, 8);
  y[7] = __shfl_sync(0xffffffffu, v, 5, 16);
}

extern "C" __global__ void atomics(unsigned *u, int *s, unsigned long long *w, float *f, double *d) {
  __shared__ unsigned inside;
  if (threadIdx.x == 0) inside = 0;
  __syncthreads();
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&inside, 1u);
  atomicAdd(u, i);
  atomicMax(u + 1, i);
  atomicMin(u + 2, i);
  atomicOr(u + 3, 1u << (i % 32));
  atomicInc(u + 4, 9u);
  atomicMin(s, (int)i - 100);
  atomicMax(s + 1, (int)i - 100);
  atomicAdd(w, (unsigned long long)i << 20);
  atomicCAS(w + 1, 0ull, 77ull);
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(u + 5, inside);
}

// The last block adds up what all blocks left behind a fence.
extern "C" __global__ void last_block(const float *x, float *parts, unsigned *done, float *out) {
  __shared__ bool last;
  float v = x[blockIdx.x * 32 + threadIdx.x];
  for (int k = 16; k > 0; k >>= 1) v += __shfl_xor_sync(0xffffffffu, v, k);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = v;
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float all = 0.0f;
    for (unsigned b = 0; b < gridDim.x; b++) all += ((volatile float *)parts)[b];
    *out = all;
  }
}
