//! The hooks, one per file. `send.rs` and `sdk.rs` hold what the files of one family share.

mod click;
mod connect;
mod exec;
mod exit;
mod exposure;
mod fork;
mod pieces;
mod registers;
mod sdk;
mod send;
mod sendmmsg;
mod sendmsg;
mod sendto;
mod syscall;
mod tls_write;
mod usdt;
mod write;
mod writev;
