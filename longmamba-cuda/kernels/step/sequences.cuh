// What the sequences of a step keep, each in memory of its own.
#pragma once

#include "common.cuh"

constexpr u32 STEP_SEQUENCES = 8;

struct Sequence {
    // Of the scan.
    float *state;
    // Thresholds, one a channel or head; null: every token is kept.
    const float *delta_min;
    // One a channel or head each, added to; or all null.
    double *delta_sum, *kept_sum;
    u64 *kept;
};

struct Sequences {
    Sequence sequence[STEP_SEQUENCES];
};
