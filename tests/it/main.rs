#[test] fn ok() {}
mod pipeline;
