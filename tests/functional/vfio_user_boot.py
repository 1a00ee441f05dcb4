# SPDX-License-Identifier: GPL-2.0-or-later
"""Something for the firmware to boot.

A boot sector that says on the debug port who it is, and before that fetches
what it says from another sector of the disk that it came from: by the
firmware's own driver, which has to do DMA for it.  Loaded by TFTP, where there
is no disk, it says what the sector itself holds.
"""

import struct

SECTOR = 512
DEBUG_PORT = 0xe9
LOADED_AT = 0x7c00
BUFFER = 0x8000
TEXT_SECTOR = 7
# Where the text of the sector itself is; the code before it is shorter.
TEXT_AT = 0x80


def _print_and_halt(address):
    """Machine code: the text that ends with NUL goes to the debug port."""
    return (b'\xbe' + struct.pack('<H', address)    # mov $address, %si
            + b'\xac'                               # next: lodsb
            + b'\x84\xc0'                           # test %al, %al
            + b'\x74\x04'                           # jz end
            + b'\xe6' + bytes([DEBUG_PORT])         # out %al, $DEBUG_PORT
            + b'\xeb\xf7'                           # jmp next
            + b'\xf4\xeb\xfd')                      # end: hlt; jmp end


def _start():
    """Segments to 0; interrupts stay, the firmware's driver may need them."""
    return (b'\xea' + struct.pack('<HH', LOADED_AT + 5, 0)  # ljmp $0, next
            + b'\x31\xc0\x8e\xd8\x8e\xc0'           # ax = ds = es = 0
            + b'\xfc')                              # cld


def _sector(code, text):
    """A whole sector with the signature of one that can be booted."""
    assert len(code) <= TEXT_AT
    body = code.ljust(TEXT_AT, b'\0') + text.encode() + b'\0'
    return body.ljust(SECTOR - 2, b'\0') + b'\x55\xaa'


def network_program(text):
    """What a network card's ROM can load and start."""
    return _sector(_start() + _print_and_halt(LOADED_AT + TEXT_AT), text)


def disk_start(text):
    """The first sectors of a disk: what the firmware starts, and the text."""
    code = _start()
    packet_at = LOADED_AT + TEXT_AT - 16
    read = (b'\xbe' + struct.pack('<H', packet_at)  # mov $packet, %si
            + b'\xb4\x42'                           # extended read
            + b'\xcd\x13'                           # of the disk in dl
            + b'\x72')                              # jc failed
    good = _print_and_halt(BUFFER)
    failed = _print_and_halt(LOADED_AT + TEXT_AT)
    code += read + bytes([len(good)]) + good + failed
    packet = struct.pack('<BBHHHQ', 16, 0, 1, BUFFER, 0, TEXT_SECTOR)
    code = code.ljust(TEXT_AT - 16, b'\0') + packet
    sectors = _sector(code, 'the disk could not be read')
    sectors = sectors.ljust(TEXT_SECTOR * SECTOR, b'\0')
    return sectors + text.encode().ljust(SECTOR, b'\0')
