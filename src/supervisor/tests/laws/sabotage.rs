//! Each law can be broken.
