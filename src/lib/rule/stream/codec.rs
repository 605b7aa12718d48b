//! One zstd stream per connection, flushed at each data frame: small frames compress with the history of the ones
//! before. Window and output are bounded on the reading side whatever the sender chose.

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use super::frame::DATA_MAX;
use super::{Corrupt, corrupt};

/// Log2 of the largest window: 1 MiB on both sides.
const WINDOW_LOG: u32 = 20;

/// Compresses data frames.
pub struct Packer {
    encoder: Encoder<'static>,
    packed: Vec<u8>,
}

/// Decompresses data frames.
pub struct Unpacker {
    decoder: Decoder<'static>,
    bytes: Vec<u8>,
}

impl Packer {
    /// With a zstd level, -7 to 19.
    pub fn new(level: i32) -> std::io::Result<Packer> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Packer { encoder, packed: Vec::new() })
    }

    /// The next bytes of the zstd stream, complete for these bytes (at most [`DATA_MAX`]).
    pub fn pack(&mut self, bytes: &[u8]) -> std::io::Result<&[u8]> {
        self.packed.resize(zstd::zstd_safe::compress_bound(DATA_MAX) + 64, 0);
        let mut output = OutBuffer::around(self.packed.as_mut_slice());
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.encoder.run(&mut input, &mut output)?;
        }
        while self.encoder.flush(&mut output)? > 0 {}
        let length = output.pos();
        Ok(&self.packed[..length])
    }
}

impl Unpacker {
    /// At the beginning of a connection.
    pub fn new() -> std::io::Result<Unpacker> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Unpacker { decoder, bytes: Vec::new() })
    }

    /// The bytes of a frame, which must be exactly `length` (at most [`DATA_MAX`]).
    pub fn unpack(&mut self, packed: &[u8], length: usize) -> Result<&[u8], Corrupt> {
        // One byte more than announced: a frame that holds more shows itself without being believed.
        self.bytes.resize(length.min(DATA_MAX) + 1, 0);
        let mut output = OutBuffer::around(self.bytes.as_mut_slice());
        let mut input = InBuffer::around(packed);
        loop {
            let before = (input.pos(), output.pos());
            if let Err(error) = self.decoder.run(&mut input, &mut output) {
                return corrupt(format!("compressed data is damaged: {error}"));
            }
            if output.pos() > length || (input.pos(), output.pos()) == before {
                break;
            }
        }
        if output.pos() != length || input.pos() != packed.len() {
            return corrupt(format!("compressed data does not hold the {length} bytes it announces"));
        }
        Ok(&self.bytes[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_share_history() {
        let (mut packer, mut unpacker) = (Packer::new(1).unwrap(), Unpacker::new().unwrap());
        let frame: Vec<u8> = (0..5000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let part = packer.pack(&frame).unwrap().to_vec();
            lengths.push(part.len());
            assert_eq!(unpacker.unpack(&part, frame.len()).unwrap(), frame);
        }
        assert!(lengths[1] < lengths[0] / 10, "{lengths:?}");
        let whole = vec![7; DATA_MAX];
        let part = packer.pack(&whole).unwrap().to_vec();
        assert_eq!(unpacker.unpack(&part, DATA_MAX).unwrap(), whole);
    }

    #[test]
    fn a_frame_that_inflates_beyond_its_word_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 300 << 20], 3).unwrap();
        assert!(bomb.len() < 40_000);
        assert!(Unpacker::new().unwrap().unpack(&bomb, 1000).is_err());
        assert!(Unpacker::new().unwrap().unpack(&bomb, DATA_MAX).is_err());
    }

    #[test]
    fn a_frame_that_holds_less_or_a_larger_window_is_refused() {
        let packed = Packer::new(1).unwrap().pack(b"abc").unwrap().to_vec();
        assert!(Unpacker::new().unwrap().unpack(&packed, 4).is_err());
        let mut encoder = Encoder::new(1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(27)).unwrap();
        let mut output = vec![0; 1000];
        let mut out = OutBuffer::around(output.as_mut_slice());
        encoder.run(&mut InBuffer::around(b"abc"), &mut out).unwrap();
        while encoder.flush(&mut out).unwrap() > 0 {}
        let length = out.pos();
        assert!(Unpacker::new().unwrap().unpack(&output[..length], 3).is_err());
    }
}
