//! The documentation: pages made from the code, and the links, files, commands and queries on the
//! other pages.

mod commands;
mod fragments;
mod links;
mod markdown;
mod pages;
mod planted_faults;
mod readme;
mod reference;
mod reward_scripts;
