//! The programs and their tables by themselves, without an agent: rewritten under load, and weighed by the verifier.

mod program_budgets;
mod torn_reads;
