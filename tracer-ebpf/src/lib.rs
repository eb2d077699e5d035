//! Nothing to see here: the kernel side is the binary target. This library exists so that cargo can
//! name the package as a build dependency of the daemon.
#![no_std]
