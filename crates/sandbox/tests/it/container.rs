//! The `container` backend, by a Podman service of each test's own. The same first process runs in it as in a jail,
//! so what a jail's suite shows of that process is not shown again; here is what the engine's part must be.

mod attacks;
mod ends;
mod engine;
mod gate;
mod limits;
mod refusals;
mod walls;
