#pragma once
#include <memory>

#include "lib/numeric/importance.h"

namespace wtool {

// How the .dat form states one entry: over how many chunks ("calls") its counts were taken, at
// least 1, as llama-imatrix rounds them up. Throws BadFile if they do not fit an i32.
std::int32_t imatrix_calls(const Importance::Entry& entry, std::uint64_t chunk_size);

// The two tensors of an entry as the .dat form has them: 'NAME.in_sum2', f32, the mean times the
// number of calls; 'NAME.counts', i32, the number of calls. Of the floats near that product the one
// is taken whose quotient is exactly the importance, where there is one.
std::unique_ptr<Step> imatrix_sums_step(std::string name, std::shared_ptr<const Importance> from,
                                        const Importance::Entry& entry, std::int32_t calls);
std::unique_ptr<Step> imatrix_counts_step(std::string name, std::int32_t calls);

}  // namespace wtool
