//! Events that are answered at once and delivered afterwards: whatever happens to the backend, to the operator's
//! patience or to the process in between.

mod conduct;
mod described;
mod fanout;
mod operators;
mod outage;
