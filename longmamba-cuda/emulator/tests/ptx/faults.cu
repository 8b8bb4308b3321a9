// Each kernel does one thing wrong if asked to, and the same thing right if not.
extern "C" __global__ void past_end(float *y, int n, int wrong) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n + wrong) y[i] = i;
}

extern "C" __global__ void misaligned(char *y, int wrong) {
  ((int *)(y + wrong))[threadIdx.x] = threadIdx.x;
}

extern "C" __global__ void past_shared(float *y, int wrong) {
  extern __shared__ float s[];
  s[threadIdx.x + wrong] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + wrong];
}

extern "C" __global__ void divergent_barrier(float *y, int wrong) {
  __shared__ float s[64];
  s[threadIdx.x] = threadIdx.x;
  if (!wrong || threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void missing_barrier(float *y, int wrong) {
  __shared__ float s[64];
  s[threadIdx.x] = threadIdx.x;
  if (!wrong) __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void write_after_read(float *y, int wrong) {
  __shared__ float s[64];
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  float v = s[63 - threadIdx.x];
  if (!wrong) __syncthreads();
  s[threadIdx.x] = v;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void exchange_in_warp(float *y, int wrong) {
  __shared__ volatile short s[64];
  __shared__ short t[64];
  s[threadIdx.x] = threadIdx.x;
  t[threadIdx.x] = threadIdx.x;
  if (!wrong) __syncwarp();
  y[threadIdx.x] = t[threadIdx.x ^ 1] + s[threadIdx.x];
}

extern "C" __global__ void missing_wait(const int *x, int *y, int wrong) {
  __shared__ int s[64];
  unsigned to = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(x + threadIdx.x));
  asm volatile("cp.async.commit_group;");
  if (!wrong) asm volatile("cp.async.wait_group 0;");
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void missing_lanes(float *y, int wrong) {
  float v = threadIdx.x;
  if (!wrong || threadIdx.x < 20) v += __shfl_xor_sync(0xffffffffu, v, 1);
  y[threadIdx.x] = v;
}

extern "C" __global__ void two_blocks(float *y, int wrong) {
  y[wrong ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x;
}

extern "C" __global__ void reads_other_block(float *y, int wrong) {
  y[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
  int other = wrong ? blockIdx.x ^ 1 : blockIdx.x;
  y[blockIdx.x * blockDim.x + threadIdx.x] = 2.0f * y[other * blockDim.x + threadIdx.x];
}

extern "C" __global__ void waits_forever(volatile int *flag, int wrong) {
  while (wrong && *flag == 0) {}
  *flag = 2;
}

extern "C" __global__ void traps(int wrong) {
  if (wrong && threadIdx.x == 3) __trap();
}
