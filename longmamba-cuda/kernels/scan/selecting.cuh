// The half of a block that deals with tokens: it reads the inputs, makes delta of dt_raw, masks it and sums
// it up, and, after the other half, gates y and writes it. What it reads it has asked for a tile before.
#pragma once

#include "tile.cuh"

template <typename T, int LANES>
struct Selecting {
    static constexpr int TOKENS = Shape<LANES>::TOKENS;

    const ScanArguments<T> &args;
    // A thread has one channel, and of every tile the tokens row, row + LANES, ...
    int column, row;
    u32 at;  // of the channel, in rows
    u32 sequence;
    int tokens;
    Channel channel;
    // Asked for, not yet used.
    T x[ITEMS], dt_raw[ITEMS], z[ITEMS], b[ITEMS], c[ITEMS];

    __device__ Selecting(const ScanArguments<T> &args, int thread, u32 sequence, u32 first_channel)
        : args(args), column(thread % CHANNELS), row(thread / CHANNELS), at(first_channel + column),
          sequence(sequence), tokens(tokens_of(args, sequence)), channel(args, at) {}

    // In round i the other half is at step i - 1. The same number of meetings as there.
    __device__ __forceinline__ void run(Shared<LANES> &shared, u32 steps, u32 groups) {
        Step now = {0, 0, 0}, next = now;
        fetch_tokens(0);
        fetch_states(next);
        fetch_gate(0);
        clear_sums(shared.sums);
        for (;;) {
            if (now.group == 0 && now.tile > 0) {
                gate(shared.tile[(now.tile - 1) % 2], now.tile - 1);
                fetch_gate(now.tile);
            }
            if (next.index > steps) break;
            if (next.index < steps) prepare(shared, next, groups);
            meet<LANES>();
            now = next;
            next = next.after(groups);
        }
        add_sums(shared.sums);
    }

    // Hands over the inputs of a step, and asks for those of the next.
    __device__ __forceinline__ void prepare(Shared<LANES> &shared, Step step, u32 groups) {
        if (step.group == 0) {
            select(shared.tile[step.tile % 2], shared.sums, step.tile);
            fetch_tokens(step.tile + 1);
        }
        put_states(shared.states[step.index % 2]);
        fetch_states(step.after(groups));
    }

    // Tokens from this thread's first of a tile on; none past the last column.
    __device__ int left(u32 tile, u32 column, u32 columns) const {
        return column < columns ? tokens - (int)tile * TOKENS - row : 0;
    }

    __device__ u64 first_row(u32 tile) const { return (u64)sequence * args.len + (u64)tile * TOKENS + row; }

    __device__ __forceinline__ void fetch(T (&to)[ITEMS], Rows<const T> from, u32 tile, u32 column,
                                          u32 columns) const {
        const int rest = left(tile, column, columns);
        // In bytes: one addition an item.
        const char *next = (const char *)(from.row(first_row(tile)) + column);
        const u64 step = from.stride * (LANES * sizeof(T));
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            to[i] = T{};
            if (i * LANES < rest) to[i] = *(const T *)next;
            next += step;
        }
    }

    __device__ __forceinline__ void fetch_tokens(u32 tile) {
        fetch(x, args.x, tile, at, args.d_inner);
        fetch(dt_raw, args.dt_raw, tile, at, args.d_inner);
    }

    __device__ __forceinline__ void fetch_gate(u32 tile) {
        if (args.z.data) fetch(z, args.z, tile, at, args.d_inner);
    }

    __device__ __forceinline__ void fetch_states(Step step) {
        const u32 state = step.group * STATES + column;
        fetch(b, args.b, step.tile, state, args.d_state);
        fetch(c, args.c, step.tile, state, args.d_state);
    }

    __device__ __forceinline__ void select(Tile<LANES> &out, Sums<LANES> &sums, u32 tile) {
        // Few enough for f32; the sums of tiles are added in f64.
        float all = 0, masked = 0;
        int kept = 0;
        const int rest = left(tile, at, args.d_inner);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const int t = i * LANES + row;
            // Where there is no token, x and dt_raw are 0.
            const bool live = i * LANES < rest;
            const float before = channel.delta(widen(dt_raw[i]), args.limits);
            const bool keep = live && channel.keeps(before);
            const float delta = keep ? before : 0.0f;
            all += live ? before : 0.0f;
            masked += delta;
            kept += keep;
            const float wide = widen(x[i]);
            out.update[t][column] = make_float2(delta, delta * wide);
            out.y[t][column] = channel.skip * wide;
        }
        sums.delta_sum[row][column] += all;
        sums.kept_sum[row][column] += masked;
        sums.kept[row][column] += kept;
    }

    __device__ __forceinline__ void put_states(StateTile<LANES> &out) const {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            out.b[i * LANES + row][column] = widen(b[i]);
            out.c[i * LANES + row][column] = widen(c[i]);
        }
    }

    __device__ __forceinline__ void gate(const Tile<LANES> &in, u32 tile) const {
        const int rest = left(tile, at, args.d_inner);
        char *next = (char *)(args.y.row(first_row(tile)) + at);
        const u64 step = args.y.stride * (LANES * sizeof(T));
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            float y = in.y[i * LANES + row][column];
            if (args.z.data) y *= silu_fast(widen(z[i]));
            if (i * LANES < rest) *(T *)next = narrow<T>(y);
            next += step;
        }
    }

    // y of the tokens past the sequence's length.
    __device__ void clear_rest() const {
        if (at >= args.d_inner) return;
        for (u32 t = tokens + row; t < args.len; t += LANES) {
            args.y.row((u64)sequence * args.len + t)[at] = narrow<T>(0.0f);
        }
    }

    __device__ void clear_sums(Sums<LANES> &sums) const {
        sums.delta_sum[row][column] = sums.kept_sum[row][column] = 0;
        sums.kept[row][column] = 0;
    }

    // Adds the sums of all threads of a channel to the caller's, always in the same order.
    __device__ void add_sums(const Sums<LANES> &sums) const {
        if (!args.kept || row != 0 || at >= args.d_inner) return;
        const u64 to = (u64)sequence * args.d_inner + at;
        for (int i = 0; i < LANES; ++i) {
            args.delta_sum[to] += sums.delta_sum[i][column];
            args.kept_sum[to] += sums.kept_sum[i][column];
            args.kept[to] += sums.kept[i][column];
        }
    }
};
