// What ordinary kernels are made of: struct parameters, tables, local arrays, calls, mathematics.
struct Args {
  const float *x;
  float *y;
  int n;
  float scale;
  unsigned char tag[3];
  double shift;
};

__constant__ float table[5] = {1.f, 2.f, 3.f, 4.5f, -1e-3f};
__device__ int counter = 7;
__device__ float slots[8];
__device__ float *third = slots + 2;

struct Nine {
  float v[9];
};

__device__ __noinline__ float iterate(float x, int n) {
  for (int i = 0; i < n; i++) x = x * 0.5f + 0.25f / (1.0f + i);
  return x;
}

__device__ __noinline__ Nine multiples(float x, const Args &args) {
  Nine nine;
  for (int i = 0; i < 9; i++) nine.v[i] = x * i + args.scale;
  return nine;
}

extern "C" __global__ void basic(Args args) {
  extern __shared__ float turned[];
  __shared__ float fixed[64];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float x = i < args.n ? args.x[i] : 0.0f;
  if (threadIdx.x < 64) fixed[threadIdx.x] = args.scale * threadIdx.x;
  turned[threadIdx.x] = x;
  __syncthreads();
  float v = turned[(threadIdx.x + 1) % blockDim.x] + table[threadIdx.x % 5];
  v += fixed[(threadIdx.x * 3) & 63] + args.tag[i % 3];
  v = iterate(v, args.n % 7) + multiples(v, args).v[i % 9];
  float kept[40];
  for (int j = 0; j < 40; j++) kept[(j * 7 + i) % 40] = v * j;
  v += kept[args.n % 40];
  if (i < args.n) {
    switch (i % 6) {
      case 0: v += 1.0f; break;
      case 1: v *= 2.0f; break;
      case 2: v = -v; break;
      case 3: v -= (float)args.shift; break;
      case 4: v = v * v; break;
      default: v = 0.5f;
    }
    args.y[i] = v;
    atomicAdd(&counter, 1);
    if (i == 0) third[0] = 42.0f;
  }
}

extern "C" __global__ void functions(const float *x, float *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = x[i];
  float *out = y + 16 * i;
  out[0] = expf(v);
  out[1] = __expf(v);
  out[2] = logf(fabsf(v) + 1e-3f);
  out[3] = log1pf(fabsf(v));
  out[4] = tanhf(v);
  out[5] = sinf(v);
  out[6] = cosf(1e6f * v);
  out[7] = sqrtf(fabsf(v));
  out[8] = rsqrtf(fabsf(v) + 0.1f);
  out[9] = v / 7.1f;
  out[10] = __fdividef(v, 3.0f);
  out[11] = powf(fabsf(v), 1.7f);
  out[12] = rintf(v * 10.0f) + floorf(v) + ceilf(v) + truncf(v);
  out[13] = fmaxf(v, 0.5f) + fminf(v, -0.5f);
  out[14] = erff(v);
  out[15] = (float)(exp((double)v) + log((double)fabsf(v) + 2.0) + sin((double)v));
}

extern "C" __global__ void axpy(float a, const float *x, float *y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    y[i] = a * x[i] + y[i];
  }
}

// A long loop of arithmetic, to measure how fast the interpreter is.
extern "C" __global__ void work(float *y, int steps) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float a = 0.001f * i, h = 0.0f;
  for (int t = 0; t < steps; t++) {
    float g = exp2f(-a * 0.01f);
    h = g * h + a * 0.5f;
    a = fmaf(a, 0.999f, 1e-3f * (t & 3));
  }
  y[i] = h;
}
