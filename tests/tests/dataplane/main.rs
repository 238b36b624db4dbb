//! The programs and their tables without an agent: tables rewritten under load, and programs measured by the verifier.

mod program_budgets;
mod torn_reads;
