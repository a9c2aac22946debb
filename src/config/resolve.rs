//! From the layers to one value for each setting, or all that is wrong with them at once.

/// Every setting's value and origin.
#[derive(Clone, Debug)]
pub(super) struct Resolved;

/// Where the layers come from.
#[derive(Clone, Debug)]
pub(super) struct Sources;
