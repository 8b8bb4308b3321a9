// C = A B^T for bf16 A (m, k) and B (n, k), f32 C (m, n): 32 by 32 tiles, four warps, two buffers
// filled by cp.async. MISSING_WAIT and MISSING_BARRIER leave out what makes it right.
__device__ __forceinline__ unsigned shared_address(const void *p) {
  return (unsigned)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void copy16(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
}

extern "C" __global__ void GEMM(const unsigned short *a, const unsigned short *b, float *c, int m, int n, int k) {
  __shared__ __align__(16) unsigned short as[2][32][40];
  __shared__ __align__(16) unsigned short bs[2][32][40];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int row0 = blockIdx.y * 32, column0 = blockIdx.x * 32;
  float acc[2][4] = {};
  auto fill = [&](int buffer, int k0) {
    int row = threadIdx.x / 4, column = threadIdx.x % 4 * 8;
    bool in_a = row0 + row < m, in_b = column0 + row < n;
    copy16(&as[buffer][row][column], a + (size_t)(in_a ? row0 + row : 0) * k + k0 + column, in_a ? 16 : 0);
    copy16(&bs[buffer][row][column], b + (size_t)(in_b ? column0 + row : 0) * k + k0 + column, in_b ? 16 : 0);
    asm volatile("cp.async.commit_group;");
  };
  fill(0, 0);
  int steps = k / 32;
  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) {
      fill((step + 1) & 1, (step + 1) * 32);
#ifndef MISSING_WAIT
      asm volatile("cp.async.wait_group 1;");
#endif
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    int buffer = step & 1, r = warp / 2 * 16, q = warp % 2 * 16;
    for (int kk = 0; kk < 32; kk += 16) {
      unsigned x[4], y[4];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                   : "r"(shared_address(&as[buffer][r + lane % 16][kk + lane / 16 * 8])));
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
                   : "r"(shared_address(&bs[buffer][q + lane % 8 + lane / 16 * 8][kk + lane / 8 % 2 * 8])));
      for (int j = 0; j < 2; j++) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
            : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * j]), "r"(y[2 * j + 1]));
      }
    }
#ifndef MISSING_BARRIER
    __syncthreads();
#endif
  }
  for (int j = 0; j < 2; j++) {
    for (int i = 0; i < 4; i++) {
      int row = row0 + warp / 2 * 16 + lane / 4 + i / 2 * 8;
      int column = column0 + warp % 2 * 16 + j * 8 + lane % 4 * 2 + i % 2;
      if (row < m && column < n) c[(size_t)row * n + column] = acc[j][i];
    }
  }
}
