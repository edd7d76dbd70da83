//! Network.
use crate::{error, log::Console};
use std::{os::fd::BorrowedFd, time::Duration};
/// Where.
pub const RESOLV_CONF: &str = "/run/coracle/resolv.conf";
/// x
pub struct Network;
impl Network {
    /// x
    pub fn begin(_m: &manifest::Manifest, _c: &mut Console) -> error::Result<Self> {
        std::fs::write(RESOLV_CONF, "").ok();
        Ok(Self)
    }
    /// x
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// x
    pub fn deadline(&self) -> Option<Duration> {
        None
    }
    /// x
    pub fn attend(&mut self, _n: Duration, _c: &mut Console) {}
}
