# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk controllers that a guest uses in the functional tests.

A row is the server's side of a device and what the guest is expected to make
of it; see `Disk` in vfio_user_case.py.
"""

from vfio_user_case import Disk

DRIVE = 'if=none,id=drive,format=raw,file={image}'

NVME = Disk(
    ['-drive', DRIVE, '-device', 'nvme,id=dev,serial=vfiouser,drive=drive'],
    driver='nvme', disk='/dev/nvme0n1', irq='msix')

# SeaBIOS before 1.16.3 waits 32 s for an interrupt bit that QEMU's AHCI has
# stopped setting in that place; qboot leaves disks alone.
AHCI = Disk(
    ['-drive', DRIVE, '-device', 'ich9-ahci,id=dev',
     '-device', 'ide-hd,bus=dev.0,drive=drive'],
    driver='ahci', disk='/dev/sda', irq='msi', firmware='qboot.rom')

MEGASAS = Disk(
    ['-drive', DRIVE, '-device', 'megasas,id=dev',
     '-device', 'scsi-hd,bus=dev.0,drive=drive'],
    driver='megaraid_sas', disk='/dev/sda', irq='msix')

SDHCI = Disk(
    ['-drive', DRIVE, '-device', 'sdhci-pci,id=dev',
     '-device', 'sd-card,drive=drive'],
    driver='sdhci-pci', disk='/dev/mmcblk0', irq='intx')

VIRTIO_BLK = Disk(
    ['-drive', DRIVE,
     '-device', 'virtio-blk-pci,id=dev,drive=drive,disable-legacy=on,'
     'iommu_platform=on'],
    driver='virtio-pci', disk='/dev/vda', irq='msix')

XHCI = Disk(
    ['-drive', DRIVE, '-device', 'qemu-xhci,id=dev',
     '-device', 'usb-storage,bus=dev.0,drive=drive'],
    driver='xhci_hcd', disk='/dev/sda', irq='msix')
