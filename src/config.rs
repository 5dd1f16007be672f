//! The configuration of a gateway: one YAML file, read strictly, with all its problems told at once.
//!
//! The file passes three rooms. `yaml` turns text into a tree in which every node knows its line; `file` is what a
//! user may type, and nothing else; `load` brings the two together and collects every [`Problem`] instead of
//! stopping at the first. What was typed and what will run are two types: settings are built from a [`File`]
//! afterwards, and report into the same [`Problems`].
//!
//! A configuration that is half understood is a gateway that is half open. Unknown keys, keys without a value,
//! duplicate keys and aliases are therefore errors here, never guesses.

mod build;
mod clients;
mod data;
mod delivery;
mod document;
pub mod file;
pub mod listen;
mod load;
mod path;
mod problem;
#[cfg(test)]
mod reference;
mod register;
mod reload;
mod routes;
pub mod settings;
mod upstream_tls;
pub mod value;
mod watch;
mod yaml;

pub use build::{LogSettings, Plan, plan_file, plan_text, route_keys, server_address};
pub use data::{DeskPlan, desk_plan};
pub use file::File;
pub use load::{load, parse};
pub use path::KeyPath;
pub use problem::{Problem, Problems, Severity};
pub use reload::{Placed, Reloaded, reload};
pub use routes::RouteKeys;
pub use watch::Watch;
