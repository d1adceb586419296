//! optune: efficient online preference tuning of language models, as a dataflow over Arrow tables.

pub mod dag;
pub mod generation;
pub mod model;
pub mod pipeline;
pub mod stages;
pub mod store;
pub mod tables;
pub mod training;
