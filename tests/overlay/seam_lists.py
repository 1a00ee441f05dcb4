# SPDX-License-Identifier: GPL-2.0-or-later
"""What check_seam.py expects, for each series of QEMU.

FILES are the files with hooks in them.  EXPECTED are the differences that
stay when the wrappers are taken back: (file, statements before, statements
after).  Each entry has to be seen to make no system call for a device
without a table.
"""


def below(directory, *names):
    return [directory + '/' + name for name in names]


def closed(source, region, device):
    """mmaps_closed is only ever set for a device with a table."""
    return [
        (source, [], [
            'region->mmaps_disabled=!enabled;',
            'enabled=enabled&&!region->vbasedev->mmaps_closed;']),
        (region, [], ['bool mmaps_disabled;']),
        (device, [], ['bool mmaps_closed;']),
    ]


# The same in all series.
COMMON = [
    # Realize: with no table each condition is what it was.
    ('hw/vfio/pci.c',
     ['if(vbasedev->fd<0&&!vbasedev->sysfsdev){'],
     ['if(!vbasedev->file_ops&&vbasedev->fd<0&&!vbasedev->sysfsdev){']),
    ('hw/vfio/pci.c',
     ['if(!vfio_device_get_name(vbasedev,errp)){'],
     ['if(!vbasedev->file_ops&&!vfio_device_get_name(vbasedev,errp)){']),
    ('hw/vfio/pci.c',
     ['vbasedev->mdev=vfio_device_is_mdev(vbasedev);'],
     ['vbasedev->mdev=vbasedev->file_ops||vfio_device_is_mdev(vbasedev);']),
    # The VGA region remembers its device, not the device's descriptor.
    ('hw/vfio/pci.c',
     ['vdev->vga->fd=vdev->vbasedev.fd;'],
     ['vdev->vga->vbasedev=&vdev->vbasedev;']),
    ('hw/vfio/pci.h', ['int fd;'], ['VFIODevice*vbasedev;']),
    # Vectors without a use are skipped only with a table.
    ('hw/vfio/pci.c', [], [
        'if(vdev->vbasedev.file_ops&&!vdev->msi_vectors[i].use){',
        'continue;', '}']),
    # Its device's descriptor is looked up where it is used.
    ('hw/vfio/migration.c',
     ['VFIOMigration*migration=vbasedev->migration;'], []),
]

FILES_10_0 = below(
    'hw/vfio', 'common.c', 'display.c', 'helpers.c', 'igd.c',
    'migration-multifd.c', 'migration.c', 'pci-quirks.c', 'pci.c',
    'pci.h') + below(
    'include/hw/vfio', 'vfio-common.h', 'vfio-container-base.h')

EXPECTED_10_0 = COMMON + closed(
    'hw/vfio/helpers.c', 'include/hw/vfio/vfio-common.h',
    'include/hw/vfio/vfio-common.h') + [
    # Transactions: both functions do nothing without the optional members.
    ('hw/vfio/common.c', [], [
        'static void vfio_listener_begin(MemoryListener*listener){',
        'VFIOContainerBase*bcontainer=container_of(listener,'
        'VFIOContainerBase,listener);',
        'VFIOIOMMUClass*vioc=VFIO_IOMMU_GET_CLASS(bcontainer);',
        'if(vioc->listener_begin){',
        'vioc->listener_begin(bcontainer);',
        '}', '}',
        'static void vfio_listener_commit(MemoryListener*listener){',
        'VFIOContainerBase*bcontainer=container_of(listener,'
        'VFIOContainerBase,listener);',
        'VFIOIOMMUClass*vioc=VFIO_IOMMU_GET_CLASS(bcontainer);',
        'if(vioc->listener_commit){',
        'vioc->listener_commit(bcontainer);',
        '}', '}']),
    ('hw/vfio/common.c',
     ['.name="vfio",.region_add=vfio_listener_region_add,'
      '.region_del=vfio_listener_region_del,'
      '.log_global_start=vfio_listener_log_global_start,'
      '.log_global_stop=vfio_listener_log_global_stop,'
      '.log_sync=vfio_listener_log_sync,}'],
     ['.name="vfio",.begin=vfio_listener_begin,.commit=vfio_listener_commit,'
      '.region_add=vfio_listener_region_add,'
      '.region_del=vfio_listener_region_del,'
      '.log_global_start=vfio_listener_log_global_start,'
      '.log_global_stop=vfio_listener_log_global_stop,'
      '.log_sync=vfio_listener_log_sync,}']),
    # The backend: only with a table.
    ('hw/vfio/common.c', [], [
        'if(vbasedev->file_ops){',
        'ops=VFIO_IOMMU_CLASS('
        'object_class_by_name(vbasedev->file_ops->iommu_type));',
        '}']),
    # Declarations.
    ('include/hw/vfio/vfio-common.h', [],
     ['const struct VFIODeviceFileOps*file_ops;']),
    ('include/hw/vfio/vfio-common.h', [],
     ['#include "hw/vfio/vfio-device-file.h"']),
    ('include/hw/vfio/vfio-container-base.h', [], [
        'void(*listener_begin)(VFIOContainerBase*bcontainer);',
        'void(*listener_commit)(VFIOContainerBase*bcontainer);']),
]

FILES_10_2 = below(
    'hw/vfio', 'device.c', 'display.c', 'igd.c', 'listener.c',
    'migration-multifd.c', 'migration.c', 'pci-quirks.c', 'pci.c', 'pci.h',
    'region.c', 'vfio-listener.h', 'vfio-region.h') + below(
    'include/hw/vfio', 'vfio-device.h')

EXPECTED_10_2 = COMMON + closed(
    'hw/vfio/region.c', 'hw/vfio/vfio-region.h',
    'include/hw/vfio/vfio-device.h') + [
    # The backend: only with a table.
    ('hw/vfio/device.c', [], [
        'if(vbasedev->file_ops){',
        'iommu_type=vbasedev->file_ops->iommu_type;',
        '}']),
    # A kernel device has no descriptors of regions: what was asked for is
    # its own (vfio_device_get_region_fd).
    ('hw/vfio/region.c', ['int fd;'], []),
    ('hw/vfio/region.c',
     ['fd=vfio_device_get_region_fd(region->vbasedev,region->nr);'], []),
    ('hw/vfio/region.c',
     ['region->mmaps[i].mmap=mmap(map_align,region->mmaps[i].size,prot,'
      'MAP_SHARED|MAP_FIXED,fd,'
      'region->fd_offset+region->mmaps[i].offset);'],
     ['region->mmaps[i].mmap=mmap(map_align,region->mmaps[i].size,prot,'
      'MAP_SHARED|MAP_FIXED,region->vbasedev->fd,'
      'region->fd_offset+region->mmaps[i].offset);']),
    # Declarations.
    ('hw/vfio/listener.c',
     ['static const MemoryListener vfio_memory_listener={'],
     ['const MemoryListener vfio_memory_listener={']),
    ('hw/vfio/vfio-listener.h', [],
     ['extern const MemoryListener vfio_memory_listener;']),
    ('include/hw/vfio/vfio-device.h', [],
     ['const struct VFIODeviceFileOps*file_ops;']),
] + [('hw/vfio/' + name, [], ['#include "hw/vfio/vfio-device-file.h"'])
     for name in ('device.c', 'display.c', 'igd.c', 'migration-multifd.c',
                  'migration.c', 'pci-quirks.c', 'pci.c', 'region.c')]

# Patches to hw/vfio for every device, in the order of the series. What they
# change can be met only by a guest that ended QEMU without them.
FIXES = [
    'hw-vfio-bars-that-are-accessed-without-the-bql.patch',
    'vfio-pci-choose-the-interrupt-type-by-both-bits.patch',
    'vfio-pci-follow-the-number-of-msi-vectors.patch',
]

LISTS = {
    '10.0': (FILES_10_0, EXPECTED_10_0),
    '10.2': (FILES_10_2, EXPECTED_10_2),
}
