//! Real pipes and real files.
