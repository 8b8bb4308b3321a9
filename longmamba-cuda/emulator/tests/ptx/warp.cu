// What is written in assembly: barriers of a part of the block, matrix fragments, addresses.
typedef unsigned short u16;

__device__ __forceinline__ unsigned shared_address(const void *p) {
  return (unsigned)__cvta_generic_to_shared(p);
}

// Warps 0 and 1 fill, warps 2 and 3 use, by two named barriers.
extern "C" __global__ void named_barriers(float *y, int wrong) {
  __shared__ float s[64];
  int i = threadIdx.x % 64;
  if (threadIdx.x < 64) {
    for (int round = 0; round < 3; round++) {
      if (round > 0 && !wrong) asm volatile("bar.sync 2, 128;" ::: "memory");
      s[i] = round * 100 + i;
      asm volatile("bar.arrive 1, 128;" ::: "memory");
    }
  } else {
    float sum = 0;
    for (int round = 0; round < 3; round++) {
      asm volatile("bar.sync 1, 128;" ::: "memory");
      sum += s[63 - i];
      if (round < 2 && !wrong) asm volatile("bar.arrive 2, 128;" ::: "memory");
    }
    y[i] = sum;
  }
}

extern "C" __global__ void reducing_barriers(int *y) {
  y[threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0) + 1000 * __syncthreads_and(threadIdx.x < 90)
                 + 10000 * __syncthreads_or(threadIdx.x == 5);
}

// Lane i names row i % 8 of matrix i / 8; x holds the fragments as they are, y those transposed.
extern "C" __global__ void fragments(const u16 *in, unsigned *x, unsigned *y, unsigned *z) {
  __shared__ __align__(16) u16 s[32][8];
  for (int i = threadIdx.x; i < 256; i += 32) s[i / 8][i % 8] = in[i];
  __syncwarp();
  unsigned r[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(s[threadIdx.x])));
  for (int i = 0; i < 4; i++) x[i * 32 + threadIdx.x] = r[i];
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(s[threadIdx.x % 16])));
  for (int i = 0; i < 2; i++) y[i * 32 + threadIdx.x] = r[i];
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r[0]) : "r"(x[threadIdx.x]));
  z[threadIdx.x] = r[0];
}

// The small shapes, on fragments that the caller has laid out.
extern "C" __global__ void shapes(const unsigned *a, const unsigned *b, const float *c, float *d, float *e, unsigned *f) {
  int l = threadIdx.x;
  float v[4];
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "r"(a[l]), "r"(a[32 + l]), "r"(b[l]), "f"(c[l]), "f"(c[32 + l]), "f"(c[64 + l]), "f"(c[96 + l]));
  for (int i = 0; i < 4; i++) d[i * 32 + l] = v[i];
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "r"(a[l]), "r"(a[32 + l]), "r"(a[64 + l]), "r"(a[96 + l]), "r"(b[l]), "r"(b[32 + l]),
                 "f"(c[l]), "f"(c[32 + l]), "f"(c[64 + l]), "f"(c[96 + l]));
  for (int i = 0; i < 4; i++) e[i * 32 + l] = v[i];
  unsigned h[2];
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%8,%8};"
               : "=r"(h[0]), "=r"(h[1])
               : "r"(a[l]), "r"(a[32 + l]), "r"(a[64 + l]), "r"(a[96 + l]), "r"(b[l]), "r"(b[32 + l]), "r"(0u));
  for (int i = 0; i < 2; i++) f[i * 32 + l] = h[i];
}

// Bytes, vectors, and addresses that do not say where they point.
__device__ __noinline__ float anywhere(const float *p) { return *(const volatile float *)p; }

extern "C" __global__ void addresses(const uchar4 *bytes, const float4 *quads, float *y) {
  __shared__ float s[4];
  float local[4];
  int i = threadIdx.x;
  uchar4 b = bytes[i];
  float4 q = quads[i];
  if (i < 4) s[i] = i * 0.5f;
  __syncthreads();
  for (int k = 0; k < 4; k++) local[(k + i) % 4] = k;
  const float *from = i % 3 == 0 ? &s[i % 4] : i % 3 == 1 ? &local[i % 4] : &quads[i].y;
  y[i] = anywhere(from) + b.x + 2 * b.y + 3 * b.z + 4 * b.w + q.x + q.z + q.w;
  short2 pair = make_short2(-i, i);
  ((short2 *)(y + 32))[i] = pair;
}

// Lanes that part and meet again: each takes as many steps as its number says.
extern "C" __global__ void parting(int *y) {
  int n = threadIdx.x, steps = 0;
  while (n != 0) {
    n = n % 2 ? n - 1 : n / 2;
    steps++;
    if (steps > 3) continue;
    steps += 100;
  }
  y[threadIdx.x] = steps + 1000 * __popc(__ballot_sync(0xffffffffu, steps & 1));
  if (threadIdx.x % 4 == 0) {
    unsigned mask = 0x11111111u;
    y[threadIdx.x] += 100000 * __shfl_xor_sync(mask, (int)threadIdx.x, 4);
  }
}

// Thread 0 waits in a loop for what another thread does, of its own warp or of the next.
extern "C" __global__ void waiting(int *y, int other) {
  __shared__ volatile int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    while (flag == 0) {}
    y[0] = flag;
  } else if (threadIdx.x == other) {
    flag = 7;
  }
}
