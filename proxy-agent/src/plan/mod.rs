//! What one node should install: a pure function of the model.

mod install;

pub use install::{Backend, Changes, Family, Problem, ServicePlan, ServicePortId, Target};
