// The logits of llama.cpp after a prompt: MODEL.gguf THREADS OUT TOKEN...
// llama-bench times but does not show them.

#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char ** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: %s MODEL.gguf THREADS OUT TOKEN...\n", argv[0]);
        return 2;
    }
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    std::vector<llama_token> tokens;
    for (int i = 4; i < argc; i++) tokens.push_back(std::atoi(argv[i]));
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_threads = params.n_threads_batch = std::atoi(argv[2]);
    llama_context * context = llama_init_from_model(model, params);
    if (!context) return 1;
    if (llama_decode(context, llama_batch_get_one(tokens.data(), tokens.size()))) return 1;
    const size_t count = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const float * logits = llama_get_logits_ith(context, -1);
    std::FILE * out = std::fopen(argv[3], "wb");
    if (!out || !logits) return 1;
    const bool written = std::fwrite(logits, sizeof(float), count, out) == count;
    return std::fclose(out) == 0 && written ? 0 : 1;
}
