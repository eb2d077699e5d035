//! Where the arguments of a USDT probe are, at one place in a program. The daemon reads it from the program's
//! notes and writes it into a table before it attaches; the kernel side only follows it.

/// Entries of the table: places of all USDT probes together. 80 KiB.
pub const MAX_USDT_SITES: u32 = 1024;

/// A saved register stands less than this many bytes from the start of the saved registers, on every
/// machine supported. A power of two.
pub const MAX_REGISTER_OFFSET: usize = 512;

/// The value is [`UsdtValue::constant`].
pub const VALUE_CONSTANT: u8 = 0;
/// The value is in the register [`UsdtValue::base`].
pub const VALUE_REGISTER: u8 = 1;
/// The value is in memory, at base + index << scale + constant.
pub const VALUE_MEMORY: u8 = 2;

/// No index register.
pub const NO_REGISTER: u16 = u16::MAX;

/// Where one argument is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdtValue {
    /// The constant, or what is added to an address.
    pub constant: i64,
    /// One of the `VALUE_` constants.
    pub kind: u8,
    /// Its length in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Not 0 when it is a signed number.
    pub is_signed: u8,
    /// Places by which the index register is shifted to the left: 0 to 3.
    pub scale: u8,
    /// Where the base register was saved, in bytes from the start of the saved registers.
    pub base: u16,
    /// The same of the index register, or [`NO_REGISTER`].
    pub index: u16,
}

impl UsdtValue {
    /// The number 0.
    pub const ZERO: Self = Self {
        constant: 0,
        kind: VALUE_CONSTANT,
        size: 8,
        is_signed: 0,
        scale: 0,
        base: 0,
        index: NO_REGISTER,
    };
}

/// Where an id is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdtId {
    /// Where its bytes are.
    pub address: UsdtValue,
    /// How many they are.
    pub len: UsdtValue,
    /// Not 0 when `len` counts; otherwise the id ends with a zero.
    pub has_len: u32,
    /// Zero.
    pub padding: u32,
}

/// An entry of the table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdtIds {
    /// Where the request id is.
    pub request_id: UsdtId,
    /// Where the item id is.
    pub item_id: UsdtId,
}

// SAFETY: `repr(C)` structs of integers without padding: every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for UsdtIds {}

const _: () = assert!(size_of::<UsdtValue>() == 16);
const _: () = assert!(size_of::<UsdtIds>() == 2 * (2 * 16 + 8));
const _: () = assert!(MAX_REGISTER_OFFSET.is_power_of_two());

/// Attach cookie of a USDT probe: bits 0..32 its entry in the table, bits 32..64 the probe's number in the
/// daemon, as in [`crate::settings::sdk_cookie`].
pub const fn usdt_cookie(site: u32, probe: u32) -> u64 {
    site as u64 | (probe as u64) << 32
}

/// The entry in the table, by a [`usdt_cookie`].
pub const fn cookie_site(cookie: u64) -> u32 {
    (cookie & 0xffff_ffff) as u32
}
