//! Broken and hostile input: each is refused with its reason, in bounded time and memory.

mod broken_inputs;
mod fuzz;
mod lying_files;
mod non_finite_numbers;
mod queries;
mod rows;
