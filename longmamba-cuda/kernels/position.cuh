// Where in its sequence the first row of a launch is.
#pragma once
#include "common.cuh"

struct Position {
    // Where the position is read when the work is done, so that a recorded launch follows it; or null.
    const u64 *stored;
    u64 given;
    __device__ u64 now() const { return stored ? *stored : given; }
};
