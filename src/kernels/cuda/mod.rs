//! The operations on an NVIDIA GPU.
