//! Whole routers talking to each other in one process, under a clock of the tests.
#![expect(unreachable_pub, reason = "modules of one test binary")]

mod collision;
mod exports;
mod leaving;
mod model;
mod net;
mod noise;
mod pressure;
mod raw;
mod restarts;
mod routes;
mod rules;
mod sessions;
mod slices;
mod storm;
