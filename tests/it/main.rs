//! All integration tests, in one program: linking costs more than compiling.

mod broken;
mod chain;
mod command_line;
mod export;
mod families;
mod floors;
mod generation;
mod kills;
mod lora;
mod model;
mod model_config;
mod pipeline;
mod remote;
mod reward_model;
mod rewards;
mod server;
mod store;
mod stories;
mod tables;
mod tasks;
mod tensors;
mod training;
mod workspace;
