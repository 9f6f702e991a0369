"""The shop's own admin: where the cause of a failed run can be repaired before it is retried."""

from django.contrib import admin

from django_steps.admin import RunsOfThis

from .models import (
    Activity,
    Customer,
    MonthlySpending,
    Notification,
    Order,
    Product,
    Purchase,
    Service,
    Supplier,
    Upload,
)


@admin.register(Service)
class ServiceAdmin(admin.ModelAdmin):
    list_display = ["name", "is_on"]
    list_display_links = None
    list_editable = ["is_on"]


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "device_token", "welcomed_at"]
    search_fields = ["name", "email"]


@admin.register(Supplier)
class SupplierAdmin(admin.ModelAdmin):
    search_fields = ["name"]


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["sku", "name", "price", "stock", "labels_printed"]
    list_editable = ["stock"]
    list_filter = ["supplier"]
    search_fields = ["sku", "name"]


@admin.register(Order)
class OrderAdmin(RunsOfThis, admin.ModelAdmin):
    list_display = ["__str__", "customer", "total", "status", "charge"]
    list_filter = ["status"]
    list_select_related = ["customer"]


@admin.register(Purchase)
class PurchaseAdmin(admin.ModelAdmin):
    list_display = ["reference", "customer", "amount", "bought_on"]
    list_select_related = ["customer"]


@admin.register(MonthlySpending)
class MonthlySpendingAdmin(admin.ModelAdmin):
    list_display = ["customer", "month", "total"]
    list_select_related = ["customer"]


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):
    list_display = ["file_key", "rows", "imported_at"]


@admin.register(Notification)
class NotificationAdmin(admin.ModelAdmin):
    list_display = ["customer", "message", "sent_at"]
    list_select_related = ["customer"]


@admin.register(Activity)
class ActivityAdmin(admin.ModelAdmin):
    list_display = ["happened_at", "what", "subject", "step", "process"]
    list_filter = ["what"]
    search_fields = ["run_id", "subject"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
